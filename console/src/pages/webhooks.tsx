// Where events are told, and what became of each.
import { useState } from "preact/hooks";
import type { Delivery, Webhook } from "../answers";
import type { Problem } from "../api";
import { Act, Badge, Empty, Facts, Labelled, Loaded, Table, Trouble, When } from "../parts";
import { useAsked } from "../asking";
import { to } from "../router";
import { useSession } from "../session";
import { count, duration, many, plain } from "../words";
import { More, usePages } from "./pages";

const DELIVERED: Record<string, "good" | "busy" | "bad"> = { delivered: "good", due: "busy", dead: "bad" };

export function Webhooks({ id }: { id: string | undefined }) {
  return id ? <OneWebhook id={id} /> : <AllWebhooks />;
}

function health(one: Webhook) {
  if (one.state === "disabled") return <Badge tone="calm">disabled{one.reason ? `, ${plain(one.reason)}` : ""}</Badge>;
  return one.failures ? <Badge tone="bad">failing</Badge> : <Badge tone="good">active</Badge>;
}

function AllWebhooks() {
  const pages = usePages<Webhook>("webhooks", "/v1/webhooks", "webhooks", { limit: 100 });
  return (
    <>
      <h1>Webhooks</h1>
      <Loaded asked={pages.asked}>
        {() => pages.rows.length === 0 ? (
          <Empty title="Nobody is told of events yet">
            <p>A webhook is an address that svsync tells of runs, conflicts and changed secrets, with a signature. Make one by the command line:</p>
            <pre>svsync webhooks add https://hooks.example.com/svsync</pre>
          </Empty>
        ) : (
          <>
            <Table caption="Webhooks" rows={pages.rows} keyOf={(row) => row.id} columns={[
              { head: "Address", wide: true, cell: (row) => <a href={to(["webhooks", row.id])}>{row.url}</a> },
              { head: "State", cell: health },
              { head: "Events", wide: true, cell: (row) => row.types.join(", ") || "all" },
              { head: "Waiting", number: true, cell: (row) => count(row.due) },
              { head: "Failed in a row", number: true, cell: (row) => count(row.failures) },
              { head: "Failing since", cell: (row) => <When at={row.failing_since} none="–" /> },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
    </>
  );
}

function OneWebhook({ id }: { id: string }) {
  const { api, can, say } = useSession();
  const at = `/v1/webhooks/${encodeURIComponent(id)}`;
  const [state, setState] = useState("");
  const [round, setRound] = useState(0);
  const [problem, setProblem] = useState<Problem | null>(null);
  // Asked once: each look is a row of the audit log.
  const hook = useAsked<Webhook>(`webhook ${id}`, (signal) => api.get(at, {}, signal));
  const key = `deliveries ${id} ${state} ${hook.data?.due} ${hook.data?.failures} ${round}`;
  const pages = usePages<Delivery>(key, `${at}/deliveries`, "deliveries", { state, limit: 100 });
  const doing = async (what: () => Promise<string>) => {
    setProblem(null);
    try {
      say(await what());
      setRound((n) => n + 1);
      hook.again();
    } catch (why) {
      setProblem(why as Problem);
    }
  };
  const replay = (body: { event_id?: string }) => doing(async () => {
    const made = await api.once<{ replayed: number }>(`${at}/replay`, JSON.stringify(body));
    return made.replayed ? `${many(made.replayed, "delivery", "deliveries")} will be sent again.` : "Nothing is dead: there was nothing to send again.";
  });
  const test = () => doing(async () => {
    const came = await api.once<{ delivered: boolean; status_code: number | null; error_code: string | null; duration_ms: number }>(
      `${at}/test`);
    const told = came.status_code === null ? plain(came.error_code ?? "no answer") : `status ${came.status_code}`;
    return `${came.delivered ? "It arrived" : "It did not arrive"}: ${told}, after ${duration(came.duration_ms)}.`;
  });
  return (
    <>
      <p class="crumbs"><a href={to(["webhooks"])}>Webhooks</a> / {id}</p>
      <Loaded asked={hook}>
        {(one) => (
          <>
            <header class="title">
              <h1>{one.url}</h1>
              {health(one)}
              {can("federation:write") ? (
                <div class="actions">
                  <Act doing={test}>Send a test</Act>
                  <Act doing={() => replay({})} disabled={one.state === "disabled"}>Replay what is dead</Act>
                </div>
              ) : null}
            </header>
            <Trouble problem={problem} />
            <Facts of={[
              ["Events", one.types.join(", ") || "all"],
              ["Paths", one.path_patterns.length ? <code>{one.path_patterns.join(", ")}</code> : "all"],
              ["Waiting", count(one.due)],
              ["Failed in a row", count(one.failures)],
              ["Failing since", <When at={one.failing_since} none="–" />],
              ["Left alone until", <When at={one.held_until} none="–" />],
              ["Made by", one.created_by ?? "–"],
              ["Made", <When at={one.created_at} />],
            ]} />
          </>
        )}
      </Loaded>
      <section>
        <h2>Deliveries</h2>
        <div class="tools">
          <Labelled label="State">
            <select value={state} onChange={(event) => setState(event.currentTarget.value)}>
              <option value="">all</option>
              <option value="due">due</option>
              <option value="delivered">delivered</option>
              <option value="dead">dead</option>
            </select>
          </Labelled>
        </div>
        <Loaded asked={pages.asked}>
          {() => pages.rows.length === 0 ? (
            <Empty title="Nothing was sent"><p>{state ? "No delivery is in this state." : "The next event of its kind is the first. Send a test to see whether it would arrive."}</p></Empty>
          ) : (
            <>
              <Table caption="Deliveries, newest first" rows={pages.rows} keyOf={(row) => row.event_id} columns={[
                { head: "State", cell: (row) => <Badge tone={DELIVERED[row.state] ?? "calm"}>{row.state}</Badge> },
                { head: "Event", wide: true, cell: (row) => row.type },
                { head: "Backend", cell: (row) => <a href={to(["backends", row.backend_id])}>{row.backend_id}</a> },
                { head: "Number", number: true, cell: (row) => count(row.sequence) },
                { head: "Made", cell: (row) => <When at={row.created_at} /> },
                { head: "Tries", number: true, cell: (row) => count(row.attempts) },
                { head: "Answer", cell: (row) => row.error_code ? plain(row.error_code) : (row.status_code ?? "–") },
                { head: "Next", cell: (row) => row.state === "due" ? <When at={row.next_at} /> : <When at={row.ended_at} none="–" /> },
                {
                  head: "Again",
                  cell: (row) => can("federation:write") && row.state !== "due"
                    ? <Act doing={() => replay({ event_id: row.event_id })}>Replay<span class="hidden"> {row.type} number {row.sequence}</span></Act> : "",
                },
              ]} />
              <More pages={pages} />
            </>
          )}
        </Loaded>
      </section>
    </>
  );
}
