// The door: a token, or ScaiKey where it is configured.
import { useEffect, useState } from "preact/hooks";
import { Problem } from "./api";
import { Act, Labelled, Trouble } from "./parts";
import { begin, finish, returned, type ScaiKey } from "./scaikey";
import { Theme } from "./theme";

const back = returned();

export function SignIn({ enter, why }: { enter: (token: string) => Promise<void>; why: string }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [scaikey, setScaikey] = useState<ScaiKey | null>(null);
  const attempt = async (what: () => Promise<void>) => {
    setProblem(null);
    try {
      await what();
    } catch (met) {
      setProblem(met instanceof Problem ? met : new Problem(0, "unknown", "This page met a mistake of its own."));
    }
  };
  useEffect(() => {
    void attempt(async () => {
      const answer = await fetch("/ui/config.json", { credentials: "omit", referrerPolicy: "no-referrer" }).catch(() => {
        throw new Problem(0, "away", "svsync does not answer: load the page again once it is up.");
      });
      const found = ((await answer.json()) as { scaikey: ScaiKey | null }).scaikey;
      setScaikey(found);
      if (back && found) {
        const { said, begun } = back;
        if (used) return;
        used = true;
        await enter(await finish(found, said, begun));
      }
    });
  }, []);
  return (
    <main id="main" tabIndex={-1} class="door">
      <form onSubmit={(event) => { event.preventDefault(); void attempt(async () => { const given = token.trim(); setToken(""); await enter(checked(given)); }); }}>
        <h1>svsync</h1>
        <p class="soft">The state of every secret store that svsync fronts.</p>
        {why ? <p class="why" role="status">{why}</p> : null}
        <Trouble problem={problem} />
        {scaikey ? <Act class="main" doing={() => attempt(() => begin(scaikey))}>Sign in with ScaiKey</Act> : null}
        {scaikey ? <p class="or soft">or with a token</p> : null}
        <Labelled label="Token">
          <input type="password" value={token} required autocomplete="off" spellcheck={false} placeholder="svt_…" onInput={(event) => setToken(event.currentTarget.value)} />
        </Labelled>
        <button type="submit" class={scaikey ? "" : "main"}>Sign in</button>
        <p class="soft small">The token stays in the memory of this tab and goes with it. Make one by <code>svsync tokens create --identity user:NAME --scope federation:read</code>.</p>
        <Theme />
      </form>
    </main>
  );
}

/** A browser sends nothing else in a header. */
function checked(token: string): string {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Problem(0, "token", "This is no token: one is a single word of letters, digits and signs, without a gap.");
  return token;
}

/** What ScaiKey said is used once, however often the door is seen. */
let used = false;
