// The rules of a backend, and what they make of a path.
import { useState } from "preact/hooks";
import type { Backend, Mapped, MapTest } from "../answers";
import { Problem } from "../api";
import { useAsked } from "../asking";
import { Badge, Facts, Labelled, Loaded, Table, Trouble } from "../parts";
import { useSession } from "../session";
import { plain } from "../words";

export function Mapping({ id }: { id: string }) {
  const { api } = useSession();
  const config = useAsked<Backend>(`config ${id}`, (signal) => api.get(`/v1/federation/backends/${id}`, {}, signal));
  const [path, setPath] = useState("");
  const [found, setFound] = useState<MapTest["paths"][number] | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const test = async () => {
    setProblem(null);
    try {
      const told = await api.ask<MapTest>(`/v1/federation/backends/${id}/map/test`, { paths: [path.trim()] });
      setFound(told.paths[0] ?? null);
    } catch (why) {
      setFound(null);
      setProblem(why as Problem);
    }
  };
  return (
    <>
      <section>
        <h2>Where does a path lead?</h2>
        <form class="tools" onSubmit={(event) => { event.preventDefault(); void test(); }}>
          <Labelled label="A remote or a local path">
            <input type="text" required maxLength={512} value={path} spellcheck={false} autocomplete="off" onInput={(event) => setPath(event.currentTarget.value)} />
          </Labelled>
          <button type="submit" class="main">Test</button>
        </form>
        <Trouble problem={problem} />
        <div aria-live="polite">
          {found ? (
            <div class="halves">
              <Way title="As a remote path" of={found.as_remote} />
              <Way title="As a local path" of={found.as_local} />
            </div>
          ) : null}
        </div>
      </section>
      <section>
        <h2>Rules, in order; the first that matches counts</h2>
        <Loaded asked={config}>
          {(backend) => (
            <Table caption="Rules" rows={backend.path_mapping.map((rule, i) => ({ rule, i }))} keyOf={({ i }) => String(i)} columns={[
              { head: "Rule", number: true, cell: ({ i }) => i + 1 },
              { head: "Local", wide: true, cell: ({ rule }) => <code>{rule.local ?? "–"}</code> },
              { head: "Remote", wide: true, cell: ({ rule }) => <code>{rule.remote ?? "–"}</code> },
              {
                head: "Otherwise than the backend", wide: true,
                cell: ({ rule }) => Object.entries(rule).filter(([name]) => name !== "local" && name !== "remote")
                  .map(([name, told]) => `${plain(name)}: ${typeof told === "string" ? told : JSON.stringify(told)}`).join("; "),
              },
            ]} />
          )}
        </Loaded>
      </section>
    </>
  );
}

function Way({ title, of }: { title: string; of: Mapped | null }) {
  if (of === null) return <section><h3>{title}</h3><p class="soft">No policy lets you list where it leads.</p></section>;
  const leads = of.reason === null && of.local !== null && of.remote !== null;
  return (
    <section>
      <h3>{title}</h3>
      <p>{leads ? <Badge tone="good">mapped by rule {(of.rule ?? 0) + 1}</Badge> : <Badge tone="warn">{plain(of.reason ?? "unmapped")}</Badge>} {of.detail}</p>
      <Facts of={[
        ["Local", of.local ? <code>{of.local}</code> : "–"],
        ["Remote", of.remote ? <code>{of.remote}</code> : "–"],
        ["Rule", of.local_pattern ? <code>{of.local_pattern} ↔ {of.remote_pattern ?? "–"}</code> : "none"],
        ...of.captures.map(({ name, value }): [string, preact.ComponentChildren] => [`Captured by ${name}`, <code>{value}</code>]),
      ]} />
    </section>
  );
}
