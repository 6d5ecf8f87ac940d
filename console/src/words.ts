// Numbers and moments as people read them.

const clock = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const withYear = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** In the viewer's zone; with the year where it is another. */
export function moment(at: string): string {
  const when = new Date(at);
  return (when.getFullYear() === new Date().getFullYear() ? clock : withYear).format(when);
}

/** The exact one. */
export const exact = (at: string): string => `${new Date(at).toISOString().replace("T", " ").replace("Z", "")} UTC`;

const UNITS: [number, string][] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** Seconds as `3 min`, `2 h 5 min`. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const at = UNITS.findIndex(([size]) => whole >= size);
  if (at < 0) return "0 s";
  const [size, unit] = UNITS[at]!;
  const first = `${Math.floor(whole / size)} ${unit}`;
  const next = UNITS[at + 1];
  const rest = next && Math.floor((whole % size) / next[0]);
  return rest && whole / size < 10 && size > 60 ? `${first} ${rest} ${next[1]}` : first;
}

/** Milliseconds as `812 ms`, `1.4 s`, `2 min`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : span(ms / 1000);
}

export const count = (n: number): string => n.toLocaleString();

export const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

export function bytes(n: number): string {
  if (n < 1024) return `${n} ${n === 1 ? "byte" : "bytes"}`;
  return n < 1024 * 1024 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1024 / 1024).toFixed(1)} MiB`;
}

export function money(one: { amount: number; currency: string }): string {
  const small = one.amount !== 0 && Math.abs(one.amount) < 0.01;
  return new Intl.NumberFormat(undefined, {
    style: "currency", currency: one.currency, maximumFractionDigits: small ? 4 : 2,
  }).format(one.amount);
}

/** `remote_deletes` as `remote deletes`. */
export const plain = (code: string): string => code.replaceAll("_", " ");

export const many = (n: number, one: string, more = `${one}s`): string => `${count(n)} ${n === 1 ? one : more}`;
