// The state of each federated secret.
import { useEffect, useState } from "preact/hooks";
import type { FederatedSecret } from "../answers";
import { Badge, Empty, Labelled, Loaded, Table, When } from "../parts";
import { to } from "../router";
import { plain } from "../words";
import { More, usePages } from "./pages";

const STATES = ["in_sync", "conflict", "diverged", "pending_push", "initial", "retained", "denied", "quarantined", "detached", "standby"];
const TONES: Record<string, "good" | "warn" | "bad" | "busy"> = {
  in_sync: "good", conflict: "warn", diverged: "warn", pending_push: "busy", initial: "busy", denied: "bad", quarantined: "bad", retained: "warn",
};

/** Whoever types has come to an end. */
const TYPING_MS = 250;

/** `mark`: what tells that the states may be others by now. */
export function Secrets({ id, mark }: { id: string; mark: string }) {
  const [state, setState] = useState("");
  const [typed, setTyped] = useState("");
  const [prefix, setPrefix] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setPrefix(typed.trim()), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  const pages = usePages<FederatedSecret>(`secrets ${id} ${state} ${prefix}`, `/v1/federation/backends/${id}/secrets`, "secrets", { state, prefix, limit: 100 }, mark);
  return (
    <>
      <div class="tools" role="search">
        <Labelled label="Path begins with">
          <input type="search" value={typed} spellcheck={false} autocapitalize="off" placeholder="apps/billing/" onInput={(event) => setTyped(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="State">
          <select value={state} onChange={(event) => setState(event.currentTarget.value)}>
            <option value="">all but detached</option>
            {STATES.map((one) => <option key={one} value={one}>{plain(one)}</option>)}
          </select>
        </Labelled>
      </div>
      <Loaded asked={pages.asked}>
        {() => pages.rows.length === 0 ? (
          <Empty title="Nothing here that you may list">
            <p>{state || prefix ? "No secret that you may list is like that." : "No run has brought a secret in yet, or no policy lets you list one: a policy with the permission list on its path shows it."}</p>
          </Empty>
        ) : (
          <>
            <Table caption="Secrets by path" rows={pages.rows} keyOf={(row) => row.remote_path} columns={[
              { head: "State", cell: (row) => <Badge tone={TONES[row.status] ?? "calm"}>{plain(row.status)}</Badge> },
              {
                head: "Path", wide: true,
                cell: (row) => row.status === "conflict" ? <a href={to(["backends", id, "conflicts", ...row.path.split("/")])}><code>{row.path}</code></a> : <code>{row.path}</code>,
              },
              { head: "Remote path", wide: true, cell: (row) => <code>{row.remote_path}</code> },
              { head: "Version", number: true, cell: (row) => row.version ?? "–" },
              { head: "Synced", cell: (row) => <When at={row.synced_at} /> },
              {
                head: "Why", wide: true,
                cell: (row) => row.moved_to ? <>now <code>{row.moved_to}</code></> : row.reason ? <>{plain(row.reason)}{row.retry_at ? <>, tried again <When at={row.retry_at} /></> : null}</> : "",
              },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
    </>
  );
}
