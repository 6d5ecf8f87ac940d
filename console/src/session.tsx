// Who looks. The token lives in the memory of this page, and goes with the tab or when svsync
// says that it counts no more.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Whoami } from "./answers";
import type { Api } from "./api";

export interface Session {
  api: Api;
  who: Whoami;
  /** Does the token have this scope? What it may do is decided by svsync alone; this only hides what it would refuse. */
  can: (scope: string) => boolean;
  /** Tell a screen reader, and whoever looks, what was done. */
  say: (what: string) => void;
}

export const SessionOf = createContext<Session | null>(null);

export function useSession(): Session {
  const session = useContext(SessionOf);
  if (!session) throw new Error("nobody is signed in");
  return session;
}

export const mayUse = (who: Whoami, scope: string): boolean =>
  who.scopes.includes("admin") || who.scopes.includes(scope);
