// The console of svsync: who looks, where they are, and the page that belongs there.
import "./style.css";
import { render } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Whoami } from "./answers";
import { Api } from "./api";
import { useAsked } from "./asking";
import { Audit } from "./pages/audit";
import { OneBackend } from "./pages/backend";
import { Keys } from "./pages/keys";
import { MigrationState } from "./pages/migration";
import { Overview } from "./pages/overview";
import { Policies } from "./pages/policies";
import { Tokens } from "./pages/tokens";
import { Webhooks } from "./pages/webhooks";
import { Empty } from "./parts";
import { to, usePlace } from "./router";
import { mayUse, type Session, SessionOf } from "./session";
import { SignIn } from "./sign_in";
import { Theme } from "./theme";
import { moment } from "./words";

const PAGES: [string, string, string][] = [
  ["", "Backends", "federation:read"],
  ["migration", "Migration", "federation:read"],
  ["webhooks", "Webhooks", "federation:read"],
  ["audit", "Audit", "audit:read"],
  ["policies", "Policies", "policies:write"],
  ["tokens", "Tokens", "admin"],
  ["keys", "Keys", "admin"],
];

function Console() {
  const [held, setHeld] = useState<{ api: Api; who: Whoami } | null>(null);
  const [why, setWhy] = useState("");
  const [said, setSaid] = useState("");
  const leave = useCallback((reason: string) => {
    setHeld(null);
    document.title = "svsync";
    setWhy(reason);
  }, []);
  const enter = useCallback(async (token: string) => {
    let entered = false;
    const api = new Api(token, (reason) => entered && leave(`You were signed out: ${reason}.`.replace("..", ".")));
    const who = await api.get<Whoami>("/v1/auth/whoami");
    entered = true;
    setWhy("");
    setHeld({ api, who });
  }, [leave]);
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(""), 8000);
    return () => clearTimeout(timer);
  }, [said]);
  const session = useMemo<Session | null>(() => held && {
    ...held, can: (scope: string) => mayUse(held.who, scope), say: setSaid,
  }, [held]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the content</a>
      {session ? (
        <SessionOf.Provider value={session}>
          <Within session={session} leave={() => leave("You are signed out.")} />
        </SessionOf.Provider>
      ) : <SignIn enter={enter} why={why} />}
      <p class="said" role="status" aria-live="polite">{said}</p>
    </>
  );
}

function Within({ session, leave }: { session: Session; leave: () => void }) {
  const { path } = usePlace();
  // Many a page asks once; whoever left it open is signed out with their token all the same.
  useAsked<Whoami>("whoami", (signal) => session.api.get("/v1/auth/whoami", {}, signal), 30_000);
  const main = useRef<HTMLElement>(null);
  const here = path[0] === "backends" ? "" : (path[0] ?? "");
  const key = path.join("/");
  useEffect(() => {
    const name = path[0] === "backends" && path[1] ? path[1] : (PAGES.find(([place]) => place === here)?.[1] ?? "svsync");
    document.title = `${name} – svsync`;
    // A screen reader goes on at the new page, not at the link or the door that is gone.
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
    for (const current of document.querySelectorAll("nav [aria-current]")) current.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [key]);
  return (
    <>
      <header class="top">
        <a class="brand" href={to([])}>svsync</a>
        <nav aria-label="Pages">
          {PAGES.filter(([, , scope]) => session.can(scope)).map(([place, name]) => (
            <a key={place} href={to(place ? [place] : [])} {...(here === place ? { "aria-current": "page" as const } : {})}>{name}</a>
          ))}
        </nav>
        <div class="who">
          <span class="soft" title={`Scopes: ${session.who.scopes.join(", ")}; until ${session.who.expires_at ? moment(session.who.expires_at) : "it is revoked"}`}>{session.who.identity_id} · {session.who.tenant}</span>
          <Theme />
          <button type="button" class="quiet" onClick={leave}>Sign out</button>
        </div>
      </header>
      <main id="main" tabIndex={-1} ref={main}><Page path={path} session={session} /></main>
    </>
  );
}

function Page({ path, session }: { path: string[]; session: Session }) {
  const [place = "", ...rest] = path;
  const needed = PAGES.find(([known]) => known === (place === "backends" ? "" : place))?.[2];
  if (needed && !session.can(needed)) {
    return (
      <Empty first title="Your token does not reach here">
        <p>This page needs the scope <code>{needed}</code>; yours has {session.who.scopes.join(", ") || "none"}. Ask whoever made it for another.</p>
      </Empty>
    );
  }
  if (place === "") return <Overview />;
  if (place === "backends" && rest[0]) return <OneBackend key={rest[0]} id={rest[0]} rest={rest.slice(1)} />;
  if (place === "webhooks") return <Webhooks id={rest[0]} />;
  if (place === "audit") return <Audit />;
  if (place === "migration") return <MigrationState />;
  if (place === "policies") return <Policies id={rest[0]} />;
  if (place === "tokens") return <Tokens />;
  if (place === "keys") return <Keys />;
  return <Empty first title="There is no such page"><p><a href={to([])}>Look at the backends</a>.</p></Empty>;
}

render(<Console />, document.getElementById("console")!);

