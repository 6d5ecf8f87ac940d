// One backend: how it is, what it did, what it holds, and what can be done with it.
import { useState } from "preact/hooks";
import type { Backend, BackendLook, DryRun, Run } from "../answers";
import { Problem } from "../api";
import { useAsked } from "../asking";
import {
  Act, Badge, Bars, Dialog, Empty, Facts, HealthBadge, Loaded, ResultBadge, Since, Table, Told, Trouble, When,
} from "../parts";
import { to } from "../router";
import { useSession } from "../session";
import { count, duration, many, money, plain, span } from "../words";
import { Conflicts } from "./conflicts";
import { Mapping } from "./mapping";
import { Staleness } from "./overview";
import { OneRun, Runs } from "./runs";
import { Secrets } from "./secrets";

const TABS: [string, string][] = [["", "Status"], ["runs", "Runs"], ["secrets", "Secrets"], ["conflicts", "Conflicts"], ["mapping", "Mapping"]];

/** With another one, what a backend's runs left behind may be another. */
const markOf = (one: BackendLook): string => [one.last_run, one.run?.run_id, one.conflicts_open, one.pending_pushes].join(" ");

export function OneBackend({ id, rest }: { id: string; rest: string[] }) {
  const { api } = useSession();
  const asked = useAsked<{ at: number; one: BackendLook | null }>(`look ${id}`, async (signal) => {
    const page = await api.get<{ at: string; backends: BackendLook[] }>("/v1/federation/status", { backend_ids: id }, signal);
    return { at: Date.parse(page.at), one: page.backends.find((backend) => backend.id === id) ?? null };
  }, 2000);
  const tab = rest[0] ?? "";
  return (
    <>
      <p class="crumbs"><a href={to([])}>Backends</a> / {id}</p>
      <Loaded asked={asked}>
        {({ at, one }) => one === null ? (
          <Empty first title="There is no such backend">
            <p>It was removed, or never was: <a href={to([])}>look at those that there are</a>.</p>
          </Empty>
        ) : (
          <>
            <header class="title">
              <h1>{one.name}</h1>
              <HealthBadge status={one.status} />
              {one.state === "active" ? null : <Badge tone="warn">{one.state}</Badge>}
              {one.stale ? <Badge tone="bad">stale</Badge> : null}
              {one.tls_verify ? null : <Badge tone="bad">TLS is not verified</Badge>}
              <Actions one={one} again={asked.again} />
            </header>
            <nav class="tabs" aria-label="Of this backend">
              {TABS.map(([place, name]) => (
                <a key={place} href={to(["backends", id, ...(place ? [place] : [])])} {...(tab === place ? { "aria-current": "page" as const } : {})}>
                  {name}{place === "conflicts" && one.conflicts_open ? ` (${count(one.conflicts_open)})` : ""}
                </a>
              ))}
            </nav>
            {tab === "" ? <Status one={one} now={at} /> : null}
            {tab === "runs" && !rest[1] ? <Runs id={id} mark={markOf(one)} /> : null}
            {tab === "runs" && rest[1] ? <OneRun id={id} run={rest[1]} /> : null}
            {tab === "secrets" ? <Secrets id={id} mark={markOf(one)} /> : null}
            {tab === "conflicts" ? <Conflicts id={id} path={rest.slice(1).join("/")} mark={markOf(one)} /> : null}
            {tab === "mapping" ? <Mapping id={id} /> : null}
          </>
        )}
      </Loaded>
    </>
  );
}

function Actions({ one, again }: { one: BackendLook; again: () => void }) {
  const { api, can, say } = useSession();
  const [problem, setProblem] = useState<Problem | null>(null);
  const [planning, setPlanning] = useState(false);
  if (!can("federation:write")) return null;
  const at = `/v1/federation/backends/${one.id}`;
  const doing = async (what: () => Promise<string>) => {
    setProblem(null);
    try {
      say(await what());
      again();
    } catch (why) {
      if (!(why instanceof Problem)) throw why;
      setProblem(why);
    }
  };
  const sync = (allow: string[] = []) => doing(async () => {
    const made = await api.post<{ run_id: string; coalesced: boolean }>(`${at}/sync`, { full: true, ...(allow.length ? { allow } : {}) });
    return made.coalesced ? "A run waits already." : "A run was asked for.";
  });
  return (
    <>
      <div class="actions">
        {one.mode === "sync" ? <button type="button" onClick={() => setPlanning(true)}>Dry run</button> : null}
        {one.paused
          ? <Act doing={() => doing(async () => { await api.post(`${at}/resume`); return "Runs begin again."; })}>Resume</Act>
          : <Act doing={() => doing(async () => { await api.post(`${at}/pause`); return "No run begins any more."; })}>Pause</Act>}
        <Act class="main" doing={() => sync()}>Sync now</Act>
      </div>
      <Trouble problem={problem} />
      {planning ? <Plan one={one} onClose={() => setPlanning(false)} sync={sync} /> : null}
    </>
  );
}

/** Of more the API knows no number. */
const MOST_COUNTED = 10_000;

/** What a run would do, before one does it. */
function Plan({ one, onClose, sync }: { one: BackendLook; onClose: () => void; sync: (allow?: string[]) => Promise<void> }) {
  const { api } = useSession();
  const [meant, setMeant] = useState(false);
  const asked = useAsked<DryRun>(`plan ${one.id}`, (signal) =>
    api.ask<DryRun>(`/v1/federation/backends/${one.id}/plan`, {}, signal));
  return (
    <Dialog title={`What a run of ${one.name} would do`} onClose={onClose}>
      <Loaded asked={asked}>
        {(dry) => {
          const skipped = Number(dry.counts["skipped"] ?? 0);
          return (
            <>
              {dry.error && !dry.guards.length ? <Trouble problem={new Problem(0, dry.error.code, dry.error.message)} /> : null}
              {dry.guards.map((guard) => <Guarded key={guard.code} code={guard.code} message={guard.message} plan={guard.plan} />)}
              <p>
                {dry.planned ? `It would do ${dry.planned < MOST_COUNTED ? "" : "at least "}${many(dry.planned, "thing")}.`
                  : dry.error ? "" : skipped ? "It would change nothing." : "It would change nothing: both sides are as the last run left them."}
                {dry.hidden ? ` ${many(dry.hidden, "path")} of them you may not list.` : ""}
                {dry.plan.length < dry.planned - dry.hidden ? ` The first ${count(dry.plan.length)} stand below.` : ""}
                {skipped ? ` ${many(skipped, "path")} would be skipped.` : ""}
                {dry.would_cost ? ` Its calls would cost about ${money(dry.would_cost)}.` : ""}
              </p>
              {dry.plan.length ? (
                <Table caption="What it would do" rows={dry.plan} keyOf={(row) => `${row.path} ${row.action}`} columns={[
                  { head: "Action", cell: (row) => <Badge tone={row.action === "delete" || row.action === "conflict" ? "warn" : "calm"}>{plain(row.action)}</Badge> },
                  { head: "Path", wide: true, cell: (row) => <code>{row.path}</code> },
                  { head: "Remote path", wide: true, cell: (row) => <code>{row.remote_path}</code> },
                  { head: "Detail", cell: (row) => row.detail },
                ]} />
              ) : null}
              {dry.guards.length ? (
                <label class="choice">
                  <input type="checkbox" checked={meant} onChange={(event) => setMeant(event.currentTarget.checked)} />
                  <span><strong>I looked at it, and it is meant</strong><span class="soft">One run passes {many(dry.guards.length, "guard")} by, and does what both sides give it to do by then.</span></span>
                </label>
              ) : null}
              <div class="actions">
                <button type="button" onClick={onClose}>Close</button>
                {dry.guards.length
                  ? <Act disabled={!meant} doing={async () => { await sync(dry.guards.map((guard) => guard.code.replace(/_guard$/, ""))); onClose(); }}>Sync past the guard</Act>
                  : dry.error ? null : <Act class="main" doing={async () => { await sync(); onClose(); }}>Sync now</Act>}
              </div>
            </>
          );
        }}
      </Loaded>
    </Dialog>
  );
}

/** A guard, with what it kept from being done. */
export function Guarded({ code, message, plan }: { code: string; message: string; plan: Record<string, number> | undefined }) {
  return (
    <div class="guarded" role="note">
      <Badge tone="bad">{plain(code)}</Badge>
      <p><Told text={message} /></p>
      {plan ? <Facts of={Object.entries(plan).filter(([, n]) => n !== 0).map(([name, n]) => [plain(name), count(n)])} /> : null}
    </div>
  );
}

function Status({ one, now }: { one: BackendLook; now: number }) {
  const { api } = useSession();
  const latest = useAsked<Run | null>(`last ${one.id} ${one.last_run}`, async (signal) =>
    one.last_run ? api.get<Run>(`/v1/federation/backends/${one.id}/runs/${one.last_run}`, {}, signal) : null);
  const config = useAsked<Backend>(`config ${one.id}`, (signal) => api.get(`/v1/federation/backends/${one.id}`, {}, signal));
  return (
    <div class="halves">
      <section>
        <h2>Now</h2>
        {one.run ? (
          <p class="at-work"><Badge tone="busy">{one.run.stage ?? "begins"}</Badge> A {one.run.kind} run is at work{one.run.to_do !== null ? `: ${count(one.run.done ?? 0)} of ${many(one.run.to_do, "secret")}` : ""}.</p>
        ) : null}
        {one.interval_unreachable ? <Guarded code="interval unreachable" message={one.interval_unreachable.message} plan={undefined} /> : null}
        {one.put_off ? <p><Badge tone="warn">put off</Badge> {plain(one.put_off.reason)}, until <When at={one.put_off.until} />.</p> : null}
        <Facts of={[
          ["Staleness", <Staleness one={one} />],
          ["Last run that went through", <Since at={one.last_success_at} now={now} />],
          ["Next due", one.paused ? "paused" : <Since at={one.next_sync_at} now={now} none="–" />],
          ["Latency", one.connection_latency_ms === null ? "–" : duration(one.connection_latency_ms)],
          ["Secrets synced", count(one.secrets_synced)],
          ["Conflicts open", one.conflicts_open ? <a href={to(["backends", one.id, "conflicts"])}>{count(one.conflicts_open)}</a> : "0"],
          ["Diverged", count(one.diverged)],
          ["Skipped", count(one.skipped)],
          ["In quarantine", count(one.quarantined)],
          ["Writes under way", count(one.pending_pushes)],
          ["Failures in a row", count(one.consecutive_failures)],
          ["Calls a cycle", one.calls_per_cycle === null ? "–" : count(one.calls_per_cycle)],
          ["Calls a day", one.calls_per_day == null ? "–" : count(Math.round(one.calls_per_day))],
          ["Estimated a day", one.cost_per_day ? money(one.cost_per_day) : "–"],
          ["Worked by", one.lease ? one.lease.holder : "nobody now"],
        ]} />
      </section>
      <section>
        <h2>Last run</h2>
        <Loaded asked={latest}>
          {(run) => run === null ? <p class="soft">It has not run yet. <strong>Sync now</strong> asks for a run.</p> : (
            <>
              <p><ResultBadge run={run} /> <a href={to(["backends", one.id, "runs", run.run_id])}>{run.kind}, by {plain(run.trigger)}</a>, <Since at={run.ended_at} now={now} none="not ended" /></p>
              {run.error ? <Guarded code={run.error.code} message={run.error.message} plan={run.counts["plan"] as Record<string, number> | undefined} /> : null}
              <Bars of={callsOf(run)} told={(n) => many(n, "call")} />
            </>
          )}
        </Loaded>
        <h2>Configuration</h2>
        <Loaded asked={config}>
          {(found) => (
            <Facts of={[
              ["Type", found.type],
              ["Mode", found.mode],
              ["Every", found.sync_interval],
              ["Promise", one.max_staleness_s === null ? "3 intervals" : span(one.max_staleness_s)],
              ["Kept by", found.managed_by === "file" ? "the configuration file" : "the API"],
              ["Revision", count(found.rev)],
              ...Object.entries(found.config).map(([name, told]): [string, string] => [plain(name), typeof told === "string" ? told : JSON.stringify(told)]),
            ]} />
          )}
        </Loaded>
      </section>
    </div>
  );
}

export const callsOf = (run: Run): [string, number][] =>
  Object.entries(run.api_calls).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
