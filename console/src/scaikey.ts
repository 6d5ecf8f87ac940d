// Signing in by ScaiKey: the authorization code with PKCE, by a public client. What has to
// outlive the redirect (verifier, state, nonce) is in the tab's own storage until it returns.
import { Problem } from "./api";

export interface ScaiKey {
  issuer: string;
  client_id: string;
}
interface Endpoints {
  issuer: string;
  authorization_endpoint: string;
  token_endpoint: string;
}
interface Begun {
  verifier: string;
  state: string;
  nonce: string;
}

const KEPT = "svsync-sign-in";
const here = (): string => `${location.origin}/ui/`;

function encoded(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
const drawn = (): string => encoded(crypto.getRandomValues(new Uint8Array(32)));

async function endpoints(scaikey: ScaiKey): Promise<Endpoints> {
  const issuer = scaikey.issuer.replace(/\/$/, "");
  const found = await asked<Endpoints>(`${issuer}/.well-known/openid-configuration`);
  const own = (address: string) => new URL(address).origin === new URL(issuer).origin;
  if (found.issuer.replace(/\/$/, "") !== issuer || !own(found.authorization_endpoint) || !own(found.token_endpoint)) {
    throw new Problem(0, "issuer", "ScaiKey says that it is somebody else: ask who runs svsync.");
  }
  return found;
}

async function asked<T>(address: string, init: RequestInit = {}): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(address, { ...init, credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store" });
  } catch {
    throw new Problem(0, "issuer_unavailable", "ScaiKey does not answer: try again, or sign in with a token.");
  }
  if (!answer.ok) throw new Problem(answer.status, "issuer", "ScaiKey refused the sign-in: begin again.");
  return (await answer.json()) as T;
}

/** Leave for ScaiKey. */
export async function begin(scaikey: ScaiKey): Promise<void> {
  if (!isSecureContext) {
    throw new Problem(0, "insecure", "ScaiKey signs people in over https alone: open this page over https, or sign in with a token.");
  }
  const { authorization_endpoint } = await endpoints(scaikey);
  const begun: Begun = { verifier: drawn(), state: drawn(), nonce: drawn() };
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(begun.verifier));
  sessionStorage.setItem(KEPT, JSON.stringify(begun));
  const asks = new URLSearchParams({
    response_type: "code",
    client_id: scaikey.client_id,
    redirect_uri: here(),
    scope: "openid",
    state: begun.state,
    nonce: begun.nonce,
    code_challenge: encoded(new Uint8Array(digest)),
    code_challenge_method: "S256",
  });
  location.assign(`${authorization_endpoint}?${asks}`);
}

/** Did ScaiKey send the browser here? Takes what it said out of the address and the storage. */
export function returned(): { said: URLSearchParams; begun: Begun | null } | null {
  const said = new URLSearchParams(location.search);
  if (!said.has("code") && !said.has("error")) return null;
  const kept = sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  history.replaceState(null, "", `/ui/${location.hash}`);
  return { said, begun: kept ? (JSON.parse(kept) as Begun) : null };
}

/** The token for what ScaiKey said. */
export async function finish(scaikey: ScaiKey, said: URLSearchParams, begun: Begun | null): Promise<string> {
  if (!begun || said.get("state") !== begun.state) {
    throw new Problem(0, "state", "This sign-in was not begun in this tab: begin again.");
  }
  const code = said.get("code");
  if (!code) throw new Problem(0, "issuer", "ScaiKey refused the sign-in: begin again.");
  const { token_endpoint } = await endpoints(scaikey);
  const got = await asked<{ access_token?: string; id_token?: string }>(token_endpoint, {
    method: "POST",
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({
      grant_type: "authorization_code",
      code,
      redirect_uri: here(),
      client_id: scaikey.client_id,
      code_verifier: begun.verifier,
    }).toString(),
  });
  // It came from the issuer itself over TLS, which stands for its signature; svsync checks that of the other.
  if (!got.access_token || nonceOf(got.id_token) !== begun.nonce) {
    throw new Problem(0, "nonce", "What ScaiKey answered belongs to another sign-in: begin again.");
  }
  return got.access_token;
}

function nonceOf(token: string | undefined): unknown {
  try {
    const payload = token!.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    return (JSON.parse(atob(payload)) as { nonce?: unknown }).nonce;
  } catch {
    return undefined;
  }
}
