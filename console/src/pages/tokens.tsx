// Static tokens: whose they are, until when they count, and how one is made or taken back.
import { useState } from "preact/hooks";
import type { NewToken, Token } from "../answers";
import type { Problem } from "../api";
import { Act, Badge, Dialog, Labelled, Loaded, Table, Trouble, When } from "../parts";
import { useSession } from "../session";
import { More, usePages } from "./pages";

const SCOPES = ["secrets:read", "secrets:write", "federation:read", "federation:write", "policies:write", "audit:read", "metrics:read", "admin"];
const TONES: Record<Token["state"], "good" | "calm" | "warn"> = { active: "good", expired: "calm", revoked: "calm" };

export function Tokens() {
  const { who } = useSession();
  const [making, setMaking] = useState(false);
  const [revoking, setRevoking] = useState<Token | null>(null);
  const pages = usePages<Token>("tokens", "/v1/auth/tokens", "tokens", { limit: 100 });
  const done = () => {
    setMaking(false);
    setRevoking(null);
    pages.again();
  };
  return (
    <>
      <header class="title">
        <h1>Tokens</h1>
        <div class="actions"><button type="button" class="main" onClick={() => setMaking(true)}>Make a token</button></div>
      </header>
      <Loaded asked={pages.asked}>
        {() => (
          <>
            <Table caption="Tokens, newest first" rows={pages.rows} keyOf={(row) => row.token_id} columns={[
              { head: "State", cell: (row) => <Badge tone={TONES[row.state]}>{row.state}</Badge> },
              { head: "Whose", cell: (row) => row.identity_id },
              { head: "Scopes", wide: true, cell: (row) => row.scopes.join(", ") },
              { head: "Made", cell: (row) => <When at={row.created_at} /> },
              { head: "By", cell: (row) => row.created_by ?? "–" },
              { head: "Until", cell: (row) => row.revoked_at ? <When at={row.revoked_at} /> : <When at={row.expires_at} none="for ever" /> },
              { head: "Last used", cell: (row) => row.last_used_on ?? "never" },
              { head: "Id", cell: (row) => <code class="small">{row.token_id}</code> },
              {
                head: "Take back",
                cell: (row) => row.state !== "active" ? "" : row.token_id === who.token_id ? <span class="soft">this one</span>
                  : <button type="button" onClick={() => setRevoking(row)}>Revoke<span class="hidden"> {row.token_id}</span></button>,
              },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
      {making ? <Make onClose={done} /> : null}
      {revoking ? <Revoke token={revoking} onClose={done} /> : null}
    </>
  );
}

function Make({ onClose }: { onClose: () => void }) {
  const { api } = useSession();
  const [identity, setIdentity] = useState("");
  const [scopes, setScopes] = useState<string[]>([]);
  const [until, setUntil] = useState("90d");
  const [made, setMade] = useState<NewToken | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const make = async () => {
    setProblem(null);
    try {
      setMade(await api.once<NewToken>("/v1/auth/tokens", JSON.stringify({ identity_id: identity.trim(), scopes, expires_in: until.trim() })));
    } catch (why) {
      setProblem(why as Problem);
    }
  };
  return (
    <Dialog title={made ? "Shown this once" : "Make a token"} onClose={onClose}>
      {made ? (
        <>
          <p>The token of {made.identity_id}. Nobody can show it again: copy it to where it is used.</p>
          <pre>{made.token}</pre>
          <div class="actions"><button type="button" class="main" onClick={onClose}>It is copied</button></div>
        </>
      ) : (
        <form class="choices" onSubmit={(event) => event.preventDefault()}>
          <Labelled label="For whom">
            <input type="text" required value={identity} spellcheck={false} autocomplete="off" placeholder="sa:billing or user:ada" onInput={(event) => setIdentity(event.currentTarget.value)} />
          </Labelled>
          <fieldset class="scopes">
            <legend class="soft small">Scopes</legend>
            {SCOPES.map((scope) => (
              <label key={scope}>
                <input type="checkbox" checked={scopes.includes(scope)} onChange={(event) => setScopes(event.currentTarget.checked ? [...scopes, scope] : scopes.filter((one) => one !== scope))} /> {scope}
              </label>
            ))}
          </fieldset>
          <Labelled label="Good for (90d, 12h, never)">
            <input type="text" value={until} spellcheck={false} autocomplete="off" onInput={(event) => setUntil(event.currentTarget.value)} />
          </Labelled>
          <Trouble problem={problem} />
          <div class="actions">
            <button type="button" onClick={onClose}>Leave it</button>
            <Act class="main" disabled={!identity.trim() || !scopes.length} doing={make}>Make it</Act>
          </div>
        </form>
      )}
    </Dialog>
  );
}

function Revoke({ token, onClose }: { token: Token; onClose: () => void }) {
  const { api, say } = useSession();
  const [problem, setProblem] = useState<Problem | null>(null);
  const revoke = async () => {
    setProblem(null);
    try {
      await api.call("DELETE", `/v1/auth/tokens/${token.token_id}`);
      say("The token counts no more.");
      onClose();
    } catch (why) {
      setProblem(why as Problem);
    }
  };
  return (
    <Dialog title={`Revoke a token of ${token.identity_id}?`} onClose={onClose}>
      <p><code>{token.token_id}</code>, with {token.scopes.join(", ")}, counts no more from the next request on. It cannot be given back.</p>
      <Trouble problem={problem} />
      <div class="actions">
        <button type="button" onClick={onClose}>Leave it</button>
        <Act class="main" doing={revoke}>Revoke it</Act>
      </div>
    </Dialog>
  );
}
