// The keys that everything is sealed with: their ages, never themselves.
import type { Key } from "../answers";
import { useAsked } from "../asking";
import { Badge, Loaded, Table, When } from "../parts";
import { useSession } from "../session";
import { count, plain, span } from "../words";

export function Keys() {
  const { api } = useSession();
  const asked = useAsked<{ keys: Key[] }>("keys", (signal) => api.get("/v1/keys", {}, signal));
  return (
    <>
      <h1>Keys</h1>
      <p class="soft">A root key wraps the data keys of the tenant, and those seal values. New ones are made as they age or are used up; <code>svsync keys rotate</code> makes one now.</p>
      <Loaded asked={asked}>
        {({ keys }) => (
          <Table caption="Keys" rows={keys} keyOf={(key) => `${key.kind} ${key.id} ${key.purpose}`} columns={[
            { head: "Key", cell: (key) => `${key.kind} ${key.id}` },
            { head: "For", cell: (key) => plain(key.purpose) },
            { head: "State", cell: (key) => <Badge tone={key.state === "active" ? "good" : "calm"}>{plain(key.state)}</Badge> },
            { head: "Age", number: true, cell: (key) => span(key.age_s) },
            { head: "Made", cell: (key) => <When at={key.created_at} /> },
            { head: "Sealings handed out", number: true, cell: (key) => count(key.reserved) },
            { head: "Values under it", number: true, cell: (key) => key.sealed === null ? "–" : count(key.sealed) },
            { head: "Wrapped by", cell: (key) => key.wrapped_by === null ? "the key service" : `root ${key.wrapped_by}` },
            { head: "Emptied", cell: (key) => <When at={key.emptied_at} none="–" /> },
          ]} />
        )}
      </Loaded>
    </>
  );
}
