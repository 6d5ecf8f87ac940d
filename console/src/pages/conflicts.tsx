// Paths on which both sides disagree: what differs, and who decides.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Conflict, Field, FieldShape, Version } from "../answers";
import { asWritten, inPath, Problem } from "../api";
import { useAsked, useFollowed } from "../asking";
import { Act, Badge, Empty, Facts, Labelled, Loaded, Table, Trouble, When } from "../parts";
import { to } from "../router";
import { useSession } from "../session";
import { bytes, count, many, plain } from "../words";
import { More, usePages } from "./pages";

/** How long values stand on the page. */
const SHOWN_S = 60;

/** `mark`: what tells that they may be others by now. */
export function Conflicts({ id, path, mark }: { id: string; path: string; mark: string }) {
  return path ? <OneConflict key={path} id={id} path={path} mark={mark} /> : <AllConflicts id={id} mark={mark} />;
}

function AllConflicts({ id, mark }: { id: string; mark: string }) {
  const [state, setState] = useState("open");
  const pages = usePages<Conflict>(`conflicts ${id} ${state}`, `/v1/federation/backends/${id}/conflicts`, "conflicts", { state, limit: 100 }, mark);
  return (
    <>
      <div class="tools">
        <Labelled label="Show">
          <select value={state} onChange={(event) => setState(event.currentTarget.value)}>
            <option value="open">those that wait for a decision</option>
            <option value="all">all</option>
          </select>
        </Labelled>
      </div>
      <Loaded asked={pages.asked}>
        {() => pages.rows.length === 0 ? (
          <Empty title="No conflict that you may see">
            <p>A conflict arises when both sides changed a secret to different values since they last agreed. Where <code>conflict_resolution</code> is <code>manual</code>, it waits here for a person.</p>
          </Empty>
        ) : (
          <>
            <Table caption="Conflicts" rows={pages.rows} keyOf={(row) => row.conflict_id} columns={[
              { head: "Path", wide: true, cell: (row) => <a href={to(["backends", id, "conflicts", ...row.path.split("/")])}><code>{row.path}</code></a> },
              { head: "State", cell: (row) => <Badge tone={row.state === "open" ? "warn" : "calm"}>{plain(row.state)}</Badge> },
              { head: "Kind", cell: (row) => plain(row.kind) },
              { head: "Local", cell: (row) => side(row.local, row.local_version ? `version ${row.local_version}` : "") },
              { head: "Remote", cell: (row) => side(row.remote, row.remote_order == null ? "" : `version ${row.remote_order}`) },
              { head: "Since", cell: (row) => <When at={row.detected_at} /> },
              { head: "Moved", cell: (row) => <When at={row.updated_at} /> },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
    </>
  );
}

const side = (state: string, version: string): string => (state === "live" ? version || "there" : state);

/** With another one, a conflict is another to decide on. */
const sidesOf = (of: Conflict): string => [of.conflict_id, of.local_version, of.remote_token, of.state].join(" ");

function OneConflict({ id, path, mark }: { id: string; path: string; mark: string }) {
  const { api } = useSession();
  const [moved, setMoved] = useState("");
  // It outlives the form, which begins anew with each move of a side: nobody types a value twice.
  const [text, setText] = useState("");
  const asked = useFollowed<{ conflict: Conflict | null }>(`conflict ${id} ${path}`, async (signal) => {
    const page = await api.get<{ conflicts: Conflict[] }>(`/v1/federation/backends/${id}/conflicts`, { path }, signal);
    return { conflict: page.conflicts[0] ?? null };
  }, mark);
  const seen = useRef("");
  useEffect(() => {
    const conflict = asked.data?.conflict;
    if (!conflict) return;
    if (conflict.state !== "open") {
      // One that is found open after it is another to decide on: nothing moved, and nothing was typed for it.
      seen.current = "";
      setText("");
      return;
    }
    const now = sidesOf(conflict);
    if (seen.current && seen.current !== now) setMoved((told) => told || MOVED);
    seen.current = now;
  }, [asked.data]);
  return (
    <>
      <p class="crumbs"><a href={to(["backends", id, "conflicts"])}>Conflicts</a> / <code>{path}</code></p>
      {moved ? <div class="moved" role="alert"><Badge tone="warn">it moved</Badge><p>{moved}</p></div> : null}
      <Loaded asked={asked}>
        {({ conflict }) => conflict === null ? (
          <Empty title="There is no conflict on this path">
            <p>Both sides agree, or you may not see it: <a href={to(["backends", id, "conflicts"])}>look at those that there are</a>.</p>
          </Empty>
        ) : <Sides key={sidesOf(conflict)} id={id} conflict={conflict} text={text} setText={setText} again={asked.again} onMoved={setMoved} />}
      </Loaded>
    </>
  );
}

const MOVED = "One of the sides moved while you looked, and nothing was done. What stands below is how it is now: look again, and decide again.";

interface Deciding {
  id: string;
  conflict: Conflict;
  text: string;
  setText: (text: string) => void;
  again: () => void;
  onMoved: (how: string) => void;
}

function Sides({ id, conflict, text, setText, again, onMoved }: Deciding) {
  const revealed = useRevealed(id, conflict, () => {
    onMoved(MOVED);
    again();
  });
  const writer = useWriter(conflict);
  const open = conflict.state === "open";
  const same = (conflict.fields ?? []).filter((field) => field.compared === "same").length;
  return (
    <>
      <header class="title">
        <h2>{plain(conflict.kind)}</h2>
        <Badge tone={open ? "warn" : "good"}>{plain(conflict.state)}</Badge>
        {open ? null : <span class="soft">{conflict.resolved_by ? `settled by ${conflict.resolved_by}, ` : "settled "}<When at={conflict.closed_at} /></span>}
      </header>
      <div class="halves">
        <section>
          <h3>Local</h3>
          <Facts of={[
            ["State", side(conflict.local, conflict.local_version ? `version ${conflict.local_version}` : "")],
            ["Written", <When at={conflict.local_created_at} none="–" />],
            ["By", writer],
          ]} />
        </section>
        <section>
          <h3>Remote</h3>
          <Facts of={[
            ["State", side(conflict.remote, conflict.remote_order == null ? "" : `version ${conflict.remote_order}`)],
            ["Path there", <code>{conflict.remote_path}</code>],
            ["Seen", <When at={conflict.updated_at} />],
          ]} />
        </section>
      </div>
      <section>
        <header class="title">
          <h3>Key by key</h3>
          <span class="soft">{count(same)} of {many((conflict.fields ?? []).length, "key")} the same</span>
          <Reveal revealed={revealed} />
        </header>
        <Trouble problem={revealed.problem} />
        {conflict.fields?.length ? (
          <Table caption="Keys of both sides" rows={conflict.fields} keyOf={(field) => field.name} columns={[
            { head: "Key", cell: (field) => <code>{field.name}</code> },
            { head: "Compared", cell: (field) => <Compared field={field} /> },
            { head: "Local", wide: true, cell: (field) => <Shape of={field.local} value={revealed.values?.local} name={field.name} /> },
            { head: "Remote", wide: true, cell: (field) => <Shape of={field.remote} value={revealed.values?.remote} name={field.name} /> },
          ]} />
        ) : <p class="soft">The keys of neither side can be compared, for one of them is {conflict.local === "live" ? conflict.remote : conflict.local}.</p>}
        {conflict.earlier?.count ? <p class="soft">It had {many(conflict.earlier.count, "other pair")} of sides before it moved on; they are kept.</p> : null}
      </section>
      {open ? <Resolve id={id} conflict={conflict} text={text} setText={setText} again={again} onMoved={onMoved} /> : null}
    </>
  );
}

const COMPARED: Record<Field["compared"], ["good" | "warn" | "calm", string]> = {
  same: ["good", "same"],
  different: ["warn", "different"],
  only_local: ["warn", "local only"],
  only_remote: ["warn", "remote only"],
  unknown: ["calm", "unknown"],
};
const Compared = ({ field }: { field: Field }) => <Badge tone={COMPARED[field.compared][0]}>{COMPARED[field.compared][1]}</Badge>;

function Shape({ of, value, name }: { of: FieldShape | null; value: Record<string, unknown> | null | undefined; name: string }) {
  if (!of) return <span class="soft">not there</span>;
  const told = value && name in value ? value[name] : undefined;
  return (
    <>
      <span class="soft">{of.type}, {bytes(of.bytes)}</span>
      {told === undefined ? null : <code class="value">{asWritten(told)}</code>}
    </>
  );
}

interface Revealed {
  values: Conflict["values"] | undefined;
  left: number;
  problem: Problem | null;
  show: () => Promise<void>;
  hide: () => void;
}

/** Both values, for a minute, while the tab is looked at. They are in this state and nowhere else. */
function useRevealed(id: string, conflict: Conflict, moved: () => void): Revealed {
  const { api, say } = useSession();
  const [values, setValues] = useState<Conflict["values"]>();
  const [left, setLeft] = useState(0);
  const [problem, setProblem] = useState<Problem | null>(null);
  const hide = () => setValues(undefined);
  useEffect(() => {
    if (!values) return;
    const until = Date.now() + SHOWN_S * 1000;
    const timer = setInterval(() => {
      const rest = Math.ceil((until - Date.now()) / 1000);
      setLeft(rest);
      if (rest <= 0) hide();
    }, 1000);
    const away = () => document.hidden && hide();
    setLeft(SHOWN_S);
    document.addEventListener("visibilitychange", away);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", away);
    };
  }, [values]);
  const show = async () => {
    setProblem(null);
    try {
      const page = await api.call<{ conflicts: Conflict[] }>("GET", `/v1/federation/backends/${id}/conflicts`,
        { query: { path: conflict.path, conflict_id: conflict.conflict_id, reveal: true }, digits: true });
      if (document.hidden) return;
      const found = page.conflicts[0];
      // They would stand below what is told of other sides.
      if (found && sidesOf(found) !== sidesOf(conflict)) moved();
      else if (found?.values) {
        setValues(found.values);
        say("Both values are shown for a minute.");
      } else {
        setProblem(new Problem(403, "reveal", found
          ? "The values are not shown: you lack the permission reveal on this path, or they are kept no more."
          : "The values are not shown: this conflict is there no more."));
      }
    } catch (why) {
      setProblem(why as Problem);
    }
  };
  return { values, left, problem, show, hide };
}

function Reveal({ revealed }: { revealed: Revealed }) {
  return revealed.values ? (
    <button type="button" onClick={revealed.hide}>Hide values ({revealed.left} s)</button>
  ) : <Act doing={revealed.show}>Reveal values (it is recorded)</Act>;
}

/** Who wrote the local side, where the caller may know. */
function useWriter(conflict: Conflict): string {
  const { api, can } = useSession();
  const known = conflict.local_version > 0 && can("secrets:read");
  const asked = useAsked<string>(`writer ${conflict.path} ${conflict.local_version}`, async (signal) => {
    if (!known) return "–";
    try {
      const page = await api.get<{ versions: Version[] }>(`/v1/secrets/${inPath(conflict.path)}`, { versions: true }, signal);
      const one = page.versions.find((version) => version.version === conflict.local_version);
      return one ? (one.created_by ?? plain(one.origin)) : "–";
    } catch (why) {
      if (why instanceof Problem && (why.status === 403 || why.status === 404)) return "you may not see its history";
      throw why;
    }
  });
  return asked.data ?? "…";
}

type Choice = "use_local" | "use_remote" | "use_value";
const CHOICES: [Choice, string, (conflict: Conflict) => string][] = [
  ["use_local", "Keep the local side", (c) => (c.local === "deleted" ? "The secret stays deleted here; where writes go through, it is deleted at the backend too, recoverably." : "The local value stays current; where writes go through, it is written to the backend.")],
  ["use_remote", "Take the remote side", (c) => (c.remote === "deleted" ? "The secret is deleted here as it is at the backend; its history stays." : "The remote value becomes a new local version; the local one stays in the history.")],
  ["use_value", "Write another value", () => "A value of yours becomes a new local version; where writes go through, it is written to the backend."],
];

function Resolve({ id, conflict, text, setText, again, onMoved }: Deciding) {
  const { api, can, say } = useSession();
  const [choice, setChoice] = useState<Choice | "">("");
  const [problem, setProblem] = useState<Problem | null>(null);
  if (!can("federation:write")) return <p class="soft">To settle it takes the scope federation:write, which your token lacks.</p>;
  const settle = async () => {
    setProblem(null);
    try {
      const asked = JSON.stringify({
        path: conflict.path,
        resolution: choice,
        conflict_id: conflict.conflict_id,
        local_version: conflict.local_version,
        remote_token: conflict.remote_token,
      });
      // The value goes as it was typed: what was parsed has lost digits, and names that came twice.
      const data = choice === "use_value" ? `,"data":${object(text)}}` : "}";
      await api.once(`/v1/federation/backends/${id}/conflicts/resolve`, asked.slice(0, -1) + data);
      onMoved("");
      say("The conflict is settled.");
      setText("");
      again();
    } catch (why) {
      const met = why as Problem;
      if (met.code === "conflict_changed" || met.status === 404) {
        onMoved(met.conflict?.state === "open"
          ? MOVED
          : "Somebody settled it while you looked, or you may not see it any more, and nothing was done now. What stands below is how it is now.");
        again();
      } else setProblem(met);
    }
  };
  return (
    <section>
      <h3>Settle it</h3>
      <form class="choices" onSubmit={(event) => event.preventDefault()}>
        <fieldset>
          <legend class="hidden">Which value is right?</legend>
          {CHOICES.map(([value, name, about]) => (
            <label key={value} class="choice">
              <input type="radio" name="resolution" value={value} checked={choice === value} onChange={() => setChoice(value)} />
              <span><strong>{name}</strong><span class="soft">{about(conflict)}</span></span>
            </label>
          ))}
        </fieldset>
        {choice === "use_value" ? (
          <Labelled label="The value, a JSON object">
            <textarea rows={6} value={text} spellcheck={false} autocomplete="off" placeholder={'{"password": "…"}'} onInput={(event) => setText(event.currentTarget.value)} />
          </Labelled>
        ) : null}
        <Trouble problem={problem} />
        <Act class="main" disabled={!choice || (choice === "use_value" && !text.trim())} doing={settle}>Settle</Act>
      </form>
    </section>
  );
}

/** The text of one JSON object. */
function object(text: string): string {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    found = null;
  }
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    throw new Problem(0, "value", 'The value is no JSON object: write it as {"key": "value"}.');
  }
  return text;
}
