// The runs of a backend, and one of them.
import { useState } from "preact/hooks";
import type { Run, Skipped } from "../answers";
import { useAsked } from "../asking";
import { Bars, Empty, Facts, Loaded, ResultBadge, Table, When } from "../parts";
import { to } from "../router";
import { useSession } from "../session";
import { bytes, count, duration, many, plain } from "../words";
import { callsOf, Guarded } from "./backend";
import { More, usePages } from "./pages";

const STAGES = ["connect", "list", "stage", "diff", "fetch", "decide", "seal", "commit", "push", "emit"];
const CHANGES = ["created", "updated", "pushed", "deleted", "conflicts"];

export function Runs({ id, mark }: { id: string; mark: string }) {
  const pages = usePages<Run>(`runs ${id}`, `/v1/federation/backends/${id}/runs`, "runs", { limit: 50 }, mark);
  return (
    <Loaded asked={pages.asked}>
      {() => pages.rows.length === 0 ? (
        <Empty title="It has not run yet"><p>A run begins when it is due. <strong>Sync now</strong> asks for one at once.</p></Empty>
      ) : (
        <>
          <Table caption="Runs, newest first" rows={pages.rows} keyOf={(run) => run.run_id} columns={[
            { head: "Result", cell: (run) => <ResultBadge run={run} /> },
            { head: "Began", cell: (run) => <a href={to(["backends", id, "runs", run.run_id])}><When at={run.started_at} none="waits" /></a> },
            { head: "Kind", cell: (run) => `${run.kind}, by ${plain(run.trigger)}` },
            { head: "Took", number: true, cell: (run) => run.duration_ms === null ? "–" : duration(run.duration_ms) },
            { head: "Listed", number: true, cell: (run) => count(number(run, "listed")) },
            { head: "Changed", wide: true, cell: (run) => changes(run) },
            { head: "Skipped", number: true, cell: (run) => count(number(run, "skipped")) },
            { head: "Error", cell: (run) => run.error ? plain(run.error.code) : "" },
          ]} />
          <More pages={pages} />
        </>
      )}
    </Loaded>
  );
}

const number = (run: Run, name: string): number => (typeof run.counts[name] === "number" ? (run.counts[name] as number) : 0);

function changes(run: Run): string {
  const told = CHANGES.filter((name) => number(run, name)).map((name) => `${count(number(run, name))} ${name}`);
  // A dry run counts what a run would do.
  return told.length ? `${run.kind === "dry" ? "would be " : ""}${told.join(", ")}` : "nothing";
}

export function OneRun({ id, run: wanted }: { id: string; run: string }) {
  const { api } = useSession();
  const [ended, setEnded] = useState(false);
  const asked = useAsked<Run>(`run ${wanted}`, async (signal) => {
    const run = await api.get<Run>(`/v1/federation/backends/${id}/runs/${encodeURIComponent(wanted)}`, {}, signal);
    setEnded(run.state !== "queued" && run.state !== "running");
    return run;
  }, ended ? 0 : 2000);
  return (
    <>
      <p class="crumbs"><a href={to(["backends", id, "runs"])}>Runs</a> / {wanted}</p>
      <Loaded asked={asked}>{(run) => <Report run={run} />}</Loaded>
    </>
  );
}

function Report({ run }: { run: Run }) {
  const reasons = Object.entries((run.counts["skipped_by_reason"] as Record<string, number> | undefined) ?? {}).sort(([, a], [, b]) => b - a);
  const counts = Object.entries(run.counts).filter((one): one is [string, number] => typeof one[1] === "number" && one[1] !== 0);
  return (
    <>
      <p>
        <ResultBadge run={run} /> A {run.kind} run, by {plain(run.trigger)}. Began <When at={run.started_at} none="not yet" />, ended <When at={run.ended_at} none="not yet" />
        {run.duration_ms === null ? "" : `, took ${duration(run.duration_ms)}`}.
      </p>
      {run.error ? <Guarded code={run.error.code} message={run.error.message} plan={run.counts["plan"] as Record<string, number> | undefined} /> : null}
      <section>
        <h2>Stages</h2>
        <Timeline stages={run.stages_ms} />
      </section>
      <div class="halves">
        <section>
          <h2>{run.kind === "dry" ? "Counts of what a run would do" : "Counts"}</h2>
          {counts.length ? <Facts of={counts.map(([name, n]) => [plain(name), name.startsWith("bytes") ? bytes(n) : count(n)])} /> : <p class="soft">Nothing was counted.</p>}
        </section>
        <section>
          <h2>Calls by operation</h2>
          {callsOf(run).length ? <Bars of={callsOf(run)} told={(n) => many(n, "call")} /> : <p class="soft">No call was made.</p>}
        </section>
      </div>
      <section>
        <h2>Skipped</h2>
        {reasons.length ? <Bars of={reasons} told={(n) => many(n, "path")} /> : <p class="soft">Nothing was skipped.</p>}
        {run.skipped?.length ? <SkippedPaths all={run.skipped} /> : null}
      </section>
    </>
  );
}

/** How long each stage had something in hand; they overlap, for a run is a stream. */
function Timeline({ stages }: { stages: Record<string, number> }) {
  const known = STAGES.filter((name) => name in stages);
  if (!known.length) return <p class="soft">No stage has ended yet.</p>;
  const most = Math.max(1, ...known.map((name) => stages[name]!));
  return (
    <ol class="timeline">
      {known.map((name) => (
        <li key={name}>
          <span>{name}</span>
          <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect x="0" y="0" width={Math.max(0.4, (100 * stages[name]!) / most)} height="10" />
          </svg>
          <span class="number">{duration(stages[name]!)}</span>
        </li>
      ))}
    </ol>
  );
}

function SkippedPaths({ all }: { all: Skipped[] }) {
  const [shown, setShown] = useState(100);
  return (
    <>
      <Table caption="Skipped paths" rows={all.slice(0, shown)} keyOf={(row) => `${row.remote_path} ${row.reason}`} columns={[
        { head: "Remote path", wide: true, cell: (row) => <code>{row.remote_path}</code> },
        { head: "Reason", cell: (row) => plain(row.reason) },
        { head: "Detail", wide: true, cell: (row) => row.detail ?? "" },
      ]} />
      {all.length > shown ? <button type="button" onClick={() => setShown(shown + 500)}>Show more of {many(all.length, "path")}</button> : null}
    </>
  );
}
