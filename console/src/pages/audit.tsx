// Who did what, and whether the log is whole.
import { useEffect, useState } from "preact/hooks";
import type { AuditEntry, Chains } from "../answers";
import { useAsked } from "../asking";
import { Badge, Empty, Facts, Labelled, Loaded, Table, When } from "../parts";
import { to, usePlace } from "../router";
import { useSession } from "../session";
import { count, many } from "../words";
import { More, usePages } from "./pages";

const FILTERS: [string, string, string][] = [
  ["identity_id", "Identity", "sa:billing"],
  ["secret_path", "Path", "apps/** "],
  ["action", "Action", "secret.read"],
  ["from", "From", "1 hour ago"],
  ["to", "To", "2026-11-29T12:00:00Z"],
];

export function Audit() {
  const { query } = usePlace();
  const asked = Object.fromEntries([...FILTERS.map(([name]) => name), "decision"].map((name) => [name, query.get(name) ?? ""]));
  const pages = usePages<AuditEntry>(`audit ${JSON.stringify(asked)}`, "/v1/audit/logs", "logs", { ...asked, limit: 100 });
  const [given, setGiven] = useState<Record<string, string>>(asked);
  useEffect(() => setGiven(asked), [JSON.stringify(asked)]);
  const set = (name: string, value: string) => setGiven((known) => ({ ...known, [name]: value }));
  const filter = (by: Record<string, string>) => {
    const trimmed = Object.fromEntries(Object.entries(by).map(([name, value]) => [name, value.trim()]));
    if (location.hash === to(["audit"], trimmed)) pages.again();
    else location.hash = to(["audit"], trimmed);
  };
  return (
    <>
      <h1>Audit</h1>
      <ChainState />
      <form class="tools" role="search" onSubmit={(event) => { event.preventDefault(); filter(given); }}>
        {FILTERS.map(([name, label, example]) => (
          <Labelled key={name} label={label}>
            <input type="text" value={given[name] ?? ""} placeholder={example.trim()} spellcheck={false} autocomplete="off" onInput={(event) => set(name, event.currentTarget.value)} />
          </Labelled>
        ))}
        <Labelled label="Decision">
          <select value={given["decision"] ?? ""} onChange={(event) => set("decision", event.currentTarget.value)}>
            <option value="">both</option>
            <option value="allow">allow</option>
            <option value="deny">deny</option>
          </select>
        </Labelled>
        <div class="actions">
          <button type="submit" class="main">Filter</button>
          <button type="button" onClick={() => { setGiven({}); filter({}); }}>Clear</button>
        </div>
      </form>
      <Loaded asked={pages.asked}>
        {() => pages.rows.length === 0 ? (
          <Empty title="Nothing of that kind was recorded"><p>Widen the time, or clear a filter. Each access is one row, allowed or denied.</p></Empty>
        ) : (
          <>
            <Table caption="The log, newest first" rows={pages.rows} keyOf={(row) => row.id} columns={[
              { head: "When", cell: (row) => <When at={row.timestamp} /> },
              { head: "Decision", cell: (row) => <Badge tone={row.decision === "allow" ? "good" : "bad"}>{row.decision}</Badge> },
              { head: "Action", cell: (row) => row.action },
              { head: "Who", cell: (row) => <a href={to(["audit"], { identity_id: row.identity_id })} onClick={() => setGiven({ identity_id: row.identity_id })}>{row.identity_id}</a> },
              { head: "Path", wide: true, cell: (row) => row.secret_path ? <code>{row.secret_path}{row.version === null ? "" : ` v${row.version}`}</code> : "" },
              { head: "Backend", cell: (row) => row.backend_id ?? "" },
              { head: "From", cell: (row) => row.source_ip ?? "" },
              { head: "Row", cell: (row) => <code class="small" title={row.request_id ?? ""}>{row.id}</code> },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
    </>
  );
}

/** The places outside that are still given checkpoints. */
const anchored = (all: Chains["anchors"]): string =>
  all.filter((one) => one.in_use !== false).map((one) => `${one.kind}${one.behind ? `, ${count(one.behind)} behind` : ""}`).join("; ");

function ChainState() {
  const { api } = useSession();
  const asked = useAsked<Chains>("chains", (signal) => api.get("/v1/audit/chains", { limit: 20 }, signal));
  return (
    <Loaded asked={asked}>
      {(found) => (
        <details class="chains">
          <summary>
            {found.checkpoint ? <Badge tone="good">checkpoint {count(found.checkpoint.n)}</Badge> : <Badge tone="warn">no checkpoint yet</Badge>}{" "}
            {found.checkpoint ? <>signed <When at={found.checkpoint.at} />; </> : null}
            {many(found.uncovered, "row")} not covered yet; {anchored(found.anchors) || "anchored nowhere outside the database"}.
          </summary>
          <p class="soft">That nothing was changed is shown by <code>svsync audit verify</code>, which checks each row, checkpoint and anchor.</p>
          <Table caption="Chains, newest first" rows={found.chains} keyOf={(row) => String(row.chain)} columns={[
            { head: "Chain", number: true, cell: (row) => row.chain },
            { head: "Written by", wide: true, cell: (row) => row.writer },
            { head: "State", cell: (row) => row.state },
            { head: "Rows", number: true, cell: (row) => count(row.rows) },
            { head: "Last row", cell: (row) => <When at={row.head?.at} none="–" /> },
            { head: "Began", cell: (row) => <When at={row.started_at} /> },
          ]} />
          {found.anchors.length ? <Facts of={found.anchors.map((one): [string, string] => [one.kind, `checkpoints ${count(one.first_n)} to ${count(one.last_n)}${one.in_use === false ? ", given no more" : ""}`])} /> : null}
        </details>
      )}
    </Loaded>
  );
}
