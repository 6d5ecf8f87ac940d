// How far a move is, folder by folder, and what comes next.
import { useEffect, useState } from "preact/hooks";
import type { Folder, Migration } from "../answers";
import { useAsked } from "../asking";
import { Badge, Empty, Labelled, Loaded, Table, Told, When } from "../parts";
import { to, usePlace } from "../router";
import { useSession } from "../session";
import { count, many, plain, span } from "../words";

const TONES: Record<string, "good" | "warn" | "busy" | "calm"> = {
  done: "good", check_source: "good", resolve: "warn", move_readers: "busy", wait_for_run: "busy", synchronise: "calm",
};

const AT_ONCE = 100;

export function MigrationState() {
  const { api } = useSession();
  const { query } = usePlace();
  const prefix = query.get("prefix") ?? "";
  const [given, setGiven] = useState(prefix);
  useEffect(() => setGiven(prefix), [prefix]);
  const asked = useAsked<Migration>(`migration ${prefix}`, (signal) => api.get("/v1/migration", { prefix }, signal));
  return (
    <>
        <h1>Migration</h1>
        <form class="tools" role="search" onSubmit={(event) => { event.preventDefault(); location.hash = to(["migration"], { prefix: given.trim() }); }}>
          <Labelled label="Below">
            <input type="text" value={given} maxLength={512} spellcheck={false} autocomplete="off" placeholder="external/hashicorp" onInput={(event) => setGiven(event.currentTarget.value)} />
          </Labelled>
          <button type="submit" class="main">Look</button>
        </form>
        <nav class="crumbs" aria-label="Folders above">
          <a href={to(["migration"])} onClick={() => setGiven("")}>all</a>
          {prefix.split("/").filter(Boolean).map((name, i, all) => {
            const at = all.slice(0, i + 1).join("/");
            return <span key={at}> / <a href={to(["migration"], { prefix: at })} onClick={() => setGiven(at)}>{name}</a></span>;
          })}
        </nav>
        <Loaded asked={asked}>
          {(found) => (
            <>
              {found.folders.length ? <Folders found={found} onGo={setGiven} /> : (
                <Empty title="Nothing here that you may list">
                  <p>Federate a backend over this folder first, and let a run bring its secrets in: <code>svsync inventory</code> tells what there is to federate, copy or leave.</p>
                </Empty>
              )}
              {found.left_out ? <p><Badge tone="warn">cut short</Badge> {many(found.left_out, "folder")} more are not shown: look below a longer prefix.</p> : null}
              {found.read_through.length ? <p>Read through, so that their secrets are not known here: {found.read_through.map((pattern, i) => <span key={pattern}>{i ? ", " : ""}<code>{pattern}</code></span>)}.</p> : null}
              <section class="notes">
                <h2>What cannot be known from here</h2>
                <ul>{found.unknown.map((sentence) => <li key={sentence}><Told text={sentence} /></li>)}</ul>
                <p class="soft">As of <When at={found.as_of} />. A secret counts as read here where an application read it within {span(found.idle_s)}.</p>
              </section>
            </>
          )}
        </Loaded>
    </>
  );
}

function Folders({ found, onGo }: { found: Migration; onGo: (prefix: string) => void }) {
  // A thousand at once take seconds to paint.
  const [shown, setShown] = useState(AT_ONCE);
  return (
    <>
    <Table<Folder> caption="Folders" rows={found.folders.slice(0, shown)} keyOf={(row) => row.folder} columns={[
      {
        head: "Folder", wide: true,
        cell: (row) => {
          const at = row.folder.replace(/\/$/, "");
          if (row.folder === found.prefix) return <span class="soft">directly in it</span>;
          return <a href={to(["migration"], { prefix: at })} onClick={() => onGo(at)}><code>{row.folder.slice(found.prefix.length)}</code></a>;
        },
      },
      { head: "How far", cell: (row) => <Progress row={row} /> },
      { head: "Secrets", number: true, cell: (row) => count(row.secrets) },
      { head: "Federated", number: true, cell: (row) => count(row.federated) },
      { head: "Synced", number: true, cell: (row) => count(row.synced) },
      { head: "Copied", number: true, cell: (row) => count(row.copied) },
      { head: "Read here", number: true, cell: (row) => count(row.read_here) },
      { head: "Ready", number: true, cell: (row) => count(row.ready) },
      {
        head: "Next", wide: true,
        cell: (row) => (
          <div class="next">
            <Badge tone={TONES[row.next.step] ?? "calm"}>{plain(row.next.step)}</Badge> <Told text={row.next.message} />
            {row.next.command ? <code>{row.next.command}</code> : null}
          </div>
        ),
      },
    ]} />
    {found.folders.length > shown ? <button type="button" onClick={() => setShown(shown + AT_ONCE)}>Show more of {many(found.folders.length, "folder")}</button> : null}
    </>
  );
}

/** Of what is federated: synced, and of that ready. */
function Progress({ row }: { row: Folder }) {
  const of = Math.max(1, row.federated);
  const told = row.federated ? `${many(row.ready, "secret")} ready and ${count(row.synced)} synced of ${count(row.federated)} federated` : "nothing federated";
  return (
    <svg class="progress" role="img" aria-label={told} viewBox="0 0 100 10" preserveAspectRatio="none">
      <title>{told}</title>
      <rect class="whole" width="100" height="10" />
      <rect class="synced" y="3" width={(100 * row.synced) / of} height="7" />
      <rect class="ready" y="6" width={(100 * row.ready) / of} height="4" />
    </svg>
  );
}
