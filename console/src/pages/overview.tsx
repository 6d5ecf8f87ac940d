// Every backend on one page, live.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { BackendLook, StatusPage, StripRun } from "../answers";
import { refused, useAsked } from "../asking";
import {
  Badge, type Column, Empty, Head, HealthBadge, Labelled, Loaded, Row, Since, Strip, useNarrow, useWindowed,
} from "../parts";
import { to } from "../router";
import { useSession } from "../session";
import { count, duration, many, money, plain, short, span } from "../words";

const EVERY_MS = 2000;
const PAGE = 1000;
const IN_ONE_LOOK = 100;
/** Of more than a page of backends those in view are asked about each time, and all of them so often. */
const WHOLE_MS = 20_000;
const STRIP_AGAIN_MS = 3000;
const ROW = 60;
const CARD = 300;
/** Above so many rows those near the window alone are made, each of one height. */
const WINDOWED = 60;
const GROUP = 44;

interface Looked { at: number; runs: StatusPage["runs"]; backends: BackendLook[] }
type Item = { group: string; many: number } | { backend: BackendLook; index: number };

/** Does somebody have to look at it? */
export function needsEyes(one: BackendLook): boolean {
  return one.status !== "healthy" || one.stale || one.conflicts_open > 0 || one.quarantined > 0 || !!one.last_error || !one.tls_verify;
}

const GROUPS: Record<string, (one: BackendLook) => string> = {
  type: (one) => one.type,
  health: (one) => one.status,
  mode: (one) => one.mode,
};
const SORTS: Record<string, (a: BackendLook, b: BackendLook) => number> = {
  attention: (a, b) => Number(needsEyes(b)) - Number(needsEyes(a)) || a.name.localeCompare(b.name),
  name: (a, b) => a.name.localeCompare(b.name),
  staleness: (a, b) => (b.staleness_s ?? -1) - (a.staleness_s ?? -1),
  conflicts: (a, b) => b.conflicts_open - a.conflicts_open || a.name.localeCompare(b.name),
};

export function Overview() {
  const { api, can, who } = useSession();
  const inView = useRef<string[]>([]);
  const whole = useRef<{ found: Looked; at: number } | null>(null);
  const asked = useAsked<Looked>("status", async (signal) => {
    const known = whole.current;
    if (known && known.found.backends.length > PAGE && performance.now() - known.at < WHOLE_MS) {
      const page: StatusPage = await api.get("/v1/federation/status", { backend_ids: inView.current.join(",") || undefined, limit: 1 + inView.current.length }, signal);
      const fresh = new Map(page.backends.map((one) => [one.id, one]));
      const backends = known.found.backends.map((one) => fresh.get(one.id) ?? one);
      known.found = { at: Date.parse(page.at), runs: page.runs, backends };
      return known.found;
    }
    const found: Looked = { at: 0, runs: { running: 0, waiting: 0 }, backends: [] };
    for (let cursor: string | null = ""; cursor !== null; ) {
      const page: StatusPage = await api.get("/v1/federation/status", { limit: PAGE, cursor }, signal);
      found.at = Date.parse(page.at);
      found.runs = page.runs;
      found.backends.push(...page.backends);
      cursor = page.next_cursor;
    }
    whole.current = { found, at: performance.now() };
    return found;
  }, EVERY_MS);
  return (
    <>
      <h1>Backends of {who.tenant}</h1>
      <Loaded asked={asked}>
        {(looked) => looked.backends.length ? <Look looked={looked} onView={(ids) => (inView.current = ids)} /> : (
          <Empty title="No backend is federated yet">
            <p>
              A backend is a secret store that svsync reads for your applications. Add one to the configuration file, or
              {can("federation:write") ? " make one" : " let somebody with the scope federation:write make one"} by the command line:
            </p>
            <pre>svsync backends add --help</pre>
          </Empty>
        )}
      </Loaded>
    </>
  );
}

function Look({ looked, onView }: { looked: Looked; onView: (ids: string[]) => void }) {
  const [search, setSearch] = useState("");
  const [show, setShow] = useState("all");
  const [group, setGroup] = useState("none");
  const [sort, setSort] = useState("attention");
  const { backends, runs, at } = looked;
  const eyes = backends.filter(needsEyes).length;
  const conflicts = backends.reduce((sum, one) => sum + one.conflicts_open, 0);
  const found = useMemo(() => {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    return backends
      .filter((one) => {
        const text = `${one.name} ${one.id} ${one.type} ${one.mode} ${one.status}`.toLowerCase();
        const kept = show === "all" || (show === "eyes" ? needsEyes(one) : show === "paused" ? one.paused : one.status === show);
        return kept && words.every((word) => text.includes(word));
      })
      .sort(SORTS[sort]);
  }, [backends, search, show, sort]);
  const items = useMemo(() => grouped(found, GROUPS[group]), [found, group]);
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const slash = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement) return;
      event.preventDefault();
      box.current?.focus();
    };
    addEventListener("keydown", slash);
    return () => removeEventListener("keydown", slash);
  }, []);
  return (
    <>
      <ul class="tiles">
        <Tile told={count(backends.length)} what="backends" />
        <Tile told={count(eyes)} what="need a look" tone={eyes ? "warn" : "good"} press={() => setShow(show === "eyes" ? "all" : "eyes")} pressed={show === "eyes"} />
        <Tile told={count(conflicts)} what="open conflicts" tone={conflicts ? "warn" : "good"} />
        <Tile told={`${count(runs.running)} / ${count(runs.waiting)}`} what="runs at work / waiting" />
        <Tile told={short.format(backends.reduce((sum, one) => sum + (one.calls_per_day ?? 0), 0))} what="calls a day" />
        <Tile told={costs(backends)} what="estimated a day" />
      </ul>
      <div class="tools" role="search">
        <Labelled label="Search">
          <input ref={box} type="search" value={search} placeholder="name, id, type ( / )" onInput={(event) => setSearch(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Show">
          <select value={show} onChange={(event) => setShow(event.currentTarget.value)}>
            <option value="all">all</option>
            <option value="eyes">that need a look</option>
            <option value="healthy">healthy</option>
            <option value="degraded">degraded</option>
            <option value="denied">denied</option>
            <option value="unreachable">unreachable</option>
            <option value="paused">paused</option>
          </select>
        </Labelled>
        <Labelled label="Group by">
          <select value={group} onChange={(event) => setGroup(event.currentTarget.value)}>
            <option value="none">nothing</option>
            {Object.keys(GROUPS).map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </Labelled>
        <Labelled label="Sort by">
          <select value={sort} onChange={(event) => setSort(event.currentTarget.value)}>
            {Object.keys(SORTS).map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </Labelled>
        <p class="soft found" role="status">{found.length === backends.length ? `${many(found.length, "backend")}` : `${count(found.length)} of ${many(backends.length, "backend")}`}</p>
      </div>
      {found.length ? <Rows items={items} at={at} total={found.length} onView={onView} /> : (
        <Empty title="No backend is like that">
          <p>Nothing matches the search and what is shown. <button type="button" class="link" onClick={() => { setSearch(""); setShow("all"); }}>Show all again</button></p>
        </Empty>
      )}
    </>
  );
}

function Tile({ told, what, tone = "", press, pressed }: { told: string; what: string; tone?: string; press?: () => void; pressed?: boolean }) {
  const inside = <><strong>{told}</strong><span>{what}</span></>;
  return (
    <li class={`tile ${tone}`}>
      {press ? <button type="button" aria-pressed={pressed ?? false} onClick={press}>{inside}</button> : <div>{inside}</div>}
    </li>
  );
}

function costs(backends: BackendLook[]): string {
  const sums = new Map<string, number>();
  for (const { cost_per_day: cost } of backends) if (cost) sums.set(cost.currency, (sums.get(cost.currency) ?? 0) + cost.amount);
  return [...sums].map(([currency, amount]) => money({ amount, currency })).join(" + ") || "–";
}

function grouped(found: BackendLook[], by: ((one: BackendLook) => string) | undefined): Item[] {
  if (!by) return found.map((backend, i) => ({ backend, index: i + 2 }));
  const groups = new Map<string, BackendLook[]>();
  for (const one of found) groups.set(by(one), [...(groups.get(by(one)) ?? []), one]);
  const items: Item[] = [];
  for (const [group, members] of [...groups].sort(([a], [b]) => a.localeCompare(b))) {
    items.push({ group, many: members.length });
    for (const backend of members) items.push({ backend, index: items.length + 2 });
  }
  return items;
}

function Rows({ items, at, total, onView }: { items: Item[]; at: number; total: number; onView: (ids: string[]) => void }) {
  const narrow = useNarrow();
  const heights = useMemo(() => items.map((item) => ("group" in item ? GROUP : narrow ? CARD : ROW)), [items, narrow]);
  const view = useWindowed(heights);
  const windowed = items.length > WINDOWED;
  const shown = windowed ? items.slice(view.first, view.last) : items;
  const backends = shown.flatMap((item) => ("group" in item ? [] : [item.backend]));
  onView(backends.slice(0, IN_ONE_LOOK).map((one) => one.id));
  const strips = useStrips(backends);
  const columns: Column<BackendLook>[] = [
    {
      head: "Backend", wide: true,
      cell: (one) => (
        <div class="name">
          <a href={to(["backends", one.id])}>{one.name}</a>
          <span class="soft">{one.id} · {one.type}</span>
        </div>
      ),
    },
    {
      head: "Health",
      cell: (one) => (
        <div class="name">
          <HealthBadge status={one.status} />
          {one.unreachable_since ? <span class="soft">for {span((at - Date.parse(one.unreachable_since)) / 1000)}</span>
            : one.last_error ? <span class="soft">{plain(one.last_error)}</span>
              : !one.tls_verify ? <span class="soft">TLS is not verified</span> : null}
        </div>
      ),
    },
    {
      head: "Mode",
      cell: (one) => (
        <div class="name">
          <span>{one.mode}</span>
          {one.state === "active" ? (one.run ? <Badge tone="busy">{one.run.stage ?? "running"}</Badge> : null) : <Badge tone="warn">{one.state}</Badge>}
        </div>
      ),
    },
    { head: "Staleness", cell: (one) => <Staleness one={one} /> },
    { head: "Latency", number: true, cell: (one) => one.connection_latency_ms === null ? <span class="soft">–</span> : duration(one.connection_latency_ms) },
    {
      head: "Conflicts", number: true,
      cell: (one) => one.conflicts_open ? <a href={to(["backends", one.id, "conflicts"])}><Badge tone="warn">{count(one.conflicts_open)}</Badge></a> : <span class="soft">0</span>,
    },
    { head: "Last 50 runs", cell: (one) => <Strip runs={strips.get(one.id)} /> },
    { head: "Next due", cell: (one) => one.paused ? <span class="soft">paused</span> : <Since at={one.next_sync_at} now={at} none="–" /> },
    {
      head: "A day", number: true,
      cell: (one) => (
        <div class="name">
          <span>{one.calls_per_day == null ? "–" : `${short.format(one.calls_per_day)} ${one.calls_per_day === 1 ? "call" : "calls"}`}</span>
          {one.cost_per_day ? <span class="soft">{money(one.cost_per_day)}</span> : null}
        </div>
      ),
    },
  ];
  return (
    <table role="table" class={`backends ${windowed ? "windowed" : ""}`} aria-rowcount={total + 1}>
      <caption class="hidden">Backends, live</caption>
      <Head columns={columns} />
      <tbody role="rowgroup" ref={view.body}>
        {windowed && view.before > 0 ? <tr class="gap" role="presentation"><td style={{ height: `${view.before}px` }} /></tr> : null}
        {shown.map((item) => "group" in item ? (
          <tr key={`group ${item.group}`} role="row" class="group">
            <th role="rowheader" scope="rowgroup" colSpan={columns.length}>{item.group} <span class="soft">{many(item.many, "backend")}</span></th>
          </tr>
        ) : <Row key={item.backend.id} columns={columns} row={item.backend} index={item.index} />)}
        {windowed && view.after > 0 ? <tr class="gap" role="presentation"><td style={{ height: `${view.after}px` }} /></tr> : null}
      </tbody>
    </table>
  );
}

/** How old the copy is, against how old it may be. */
export function Staleness({ one }: { one: BackendLook }) {
  if (!one.syncs) return <span class="soft">read live</span>;
  if (one.staleness_s === null) return <Badge tone="warn">never synced</Badge>;
  const promise = one.max_staleness_s === null ? "3 intervals" : span(one.max_staleness_s);
  return (
    <div class="name">
      {one.stale ? <Badge tone="bad">stale, {span(one.staleness_s)}</Badge> : <span>{span(one.staleness_s)}</span>}
      <span class="soft">of {promise}</span>
    </div>
  );
}

/** The strips of the backends in view; of each anew once it has another last run. */
function useStrips(shown: BackendLook[]): Map<string, StripRun[]> {
  const { api } = useSession();
  const [known, setKnown] = useState(() => new Map<string, { last: string | null; runs: StripRun[] }>());
  const asking = useRef(new Set<string>());
  const [round, setRound] = useState(0);
  const wanted = shown.filter((one) => known.get(one.id)?.last !== one.last_run || !known.has(one.id)).slice(0, IN_ONE_LOOK);
  const key = wanted.map((one) => `${one.id} ${one.last_run}`).join();
  useEffect(() => {
    const ids = wanted.filter((one) => !asking.current.has(one.id));
    if (!ids.length) return;
    for (const one of ids) asking.current.add(one.id);
    const settled = () => {
      for (const one of ids) asking.current.delete(one.id);
      // A run may have ended meanwhile.
      setRound((n) => n + 1);
    };
    void api.get<{ backends: { id: string; runs: StripRun[] }[] }>("/v1/federation/runs", { backend_ids: ids.map((one) => one.id).join(","), last: 50 })
      .then((found) => {
        const last = new Map(ids.map((one) => [one.id, one.last_run]));
        setKnown((before) => {
          const after = new Map(before);
          const runs = new Map(found.backends.map((one) => [one.id, one.runs]));
          for (const [id, asked] of last) after.set(id, { last: asked, runs: runs.get(id) ?? [] });
          return after;
        });
      })
      // The page itself tells that nothing answers; what was lost is asked for again.
      .then(settled, (why) => void (refused(why) || setTimeout(settled, STRIP_AGAIN_MS)));
  }, [key, round]);
  return useMemo(() => new Map([...known].map(([id, { runs }]) => [id, runs])), [known]);
}
