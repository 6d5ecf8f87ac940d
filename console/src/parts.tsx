// The pieces that every page is made of.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Health, MaybeTime, RunResult, StripRun } from "./answers";
import type { Problem } from "./api";
import type { Asked } from "./asking";
import { exact, many, moment, plain, span } from "./words";

type Tone = "good" | "warn" | "bad" | "calm" | "busy";
const GLYPH: Record<Tone, string> = { good: "✓", warn: "!", bad: "✕", calm: "–", busy: "…" };

/** A state: a sign and a word, and a colour that says nothing alone. */
export function Badge({ tone, children, title }: { tone: Tone; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${tone}`} {...(title ? { title } : {})}>
      <span class="glyph" aria-hidden="true">{GLYPH[tone]}</span>
      {children}
    </span>
  );
}

const HEALTH: Record<Health, Tone> = { healthy: "good", degraded: "warn", denied: "bad", unreachable: "bad" };
export const HealthBadge = ({ status }: { status: Health }) => <Badge tone={HEALTH[status] ?? "calm"}>{status}</Badge>;

const RESULT: Record<string, Tone> = { ok: "good", partial: "warn", failed: "bad" };
export function ResultBadge({ run }: { run: { state: string; result: RunResult } }) {
  const unfinished = run.state === "running" || run.state === "queued" ? "busy" : "calm";
  return <Badge tone={run.result ? (RESULT[run.result] ?? "calm") : unfinished}>{run.result ?? run.state}</Badge>;
}

/** A moment in the viewer's zone; the exact one on hover. */
export function When({ at, none = "never" }: { at: MaybeTime | undefined; none?: string }) {
  if (!at) return <span class="soft">{none}</span>;
  return <time dateTime={at} title={exact(at)}>{moment(at)}</time>;
}

/** How far a moment is from now; `now` by the clock that the moment is of. */
export function Since({ at, now = Date.now(), none = "never" }: { at: MaybeTime; now?: number; none?: string }) {
  if (!at) return <span class="soft">{none}</span>;
  const seconds = (now - Date.parse(at)) / 1000;
  const told = Math.abs(seconds) < 1 ? "now" : seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  return <time dateTime={at} title={`${moment(at)} – ${exact(at)}`}>{told}</time>;
}

const HEIGHT: Record<string, number> = { ok: 8, partial: 13, failed: 18 };

/** The last runs, oldest first. The worse one ended, the higher it stands. */
export function Strip({ runs, room = 50 }: { runs: StripRun[] | undefined; room?: number }) {
  const shown = useMemo(() => (runs ?? []).slice(0, room).reverse(), [runs, room]);
  if (!runs) return <span class="soft">…</span>;
  if (!shown.length) return <span class="soft">no runs yet</span>;
  const ends = ["ok", "partial", "failed"].map((result) => [result, shown.filter((run) => run.result === result).length] as const);
  const told = `Last ${many(shown.length, "run")}: ${ends.filter(([, n]) => n).map(([result, n]) => `${n} ${result}`).join(", ") || "none ended"}`;
  return (
    <svg class="strip" role="img" aria-label={told} viewBox={`0 0 ${room * 4} 20`} preserveAspectRatio="xMaxYMid meet">
      <title>{told}</title>
      <rect class="base" x="0" y="19" width={room * 4} height="1" />
      {shown.map((run, i) => {
        const height = HEIGHT[run.result ?? ""] ?? 4;
        const x = (room - shown.length + i) * 4;
        return <rect key={run.run_id} class={run.result ?? "none"} x={x} y={20 - height} width="3" height={height} rx="1" />;
      })}
    </svg>
  );
}

/** A sentence of the API, in which what stands between backticks is to be typed. */
export function Told({ text }: { text: string }) {
  return <>{text.split("`").map((part, i) => (i % 2 ? <code key={i}>{part}</code> : part))}</>;
}

/** What went wrong, in one sentence. */
export function Trouble({ problem, children }: { problem: Problem | null; children?: ComponentChildren }) {
  if (!problem) return null;
  return (
    <div class="trouble" role="alert">
      <span aria-hidden="true">✕</span>
      <p><Told text={problem.message} /> {children}</p>
    </div>
  );
}

/** Nothing is there, and what to do about that. */
export function Empty({ title, children, first }: { title: string; children: ComponentChildren; first?: boolean }) {
  return (
    <div class="empty">
      {first ? <h1>{title}</h1> : <h2>{title}</h2>}
      {children}
    </div>
  );
}

/** What was asked for, once it is there. What is shown stays, and is told to be old, while nothing answers. */
export function Loaded<T>({ asked, children }: { asked: Asked<T>; children: (data: T) => ComponentChildren }) {
  if (asked.data === null) {
    return asked.problem ? <Trouble problem={asked.problem} /> : <p class="soft waiting">Asking svsync…</p>;
  }
  return (
    <>
      <Trouble problem={asked.problem}>What stands here is of {moment(new Date(asked.at).toISOString())}.</Trouble>
      {children(asked.data)}
    </>
  );
}

export interface Column<Row> {
  head: string;
  cell: (row: Row) => ComponentChildren;
  /** It is a number, and stands to the right. */
  number?: boolean;
  wide?: boolean;
}

/** A table, of which each row is a card where the window is narrow. */
export function Table<Row>({ caption, columns, rows, keyOf }: {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  keyOf: (row: Row) => string;
}) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table role="table">
        <caption class="hidden">{caption}</caption>
        <Head columns={columns} />
        <tbody role="rowgroup">
          {rows.map((row) => <Row key={keyOf(row)} columns={columns} row={row} />)}
        </tbody>
      </table>
    </div>
  );
}

export function Head<R>({ columns }: { columns: Column<R>[] }) {
  return (
    <thead role="rowgroup">
      <tr role="row">
        {columns.map((one) => <th key={one.head} role="columnheader" scope="col" class={one.number ? "number" : ""}>{one.head}</th>)}
      </tr>
    </thead>
  );
}

export function Row<R>({ columns, row, index }: { columns: Column<R>[]; row: R; index?: number }) {
  return (
    <tr role="row" {...(index === undefined ? {} : { "aria-rowindex": index })}>
      {columns.map((one) => (
        <td key={one.head} role="cell" data-head={one.head} class={`${one.number ? "number" : ""} ${one.wide ? "wide" : ""}`}>
          {one.cell(row)}
        </td>
      ))}
    </tr>
  );
}

/** Which of many rows of known heights are near the window. */
export function useWindowed(heights: number[]) {
  const body = useRef<HTMLTableSectionElement>(null);
  const [view, setView] = useState({ top: 0, bottom: 1200 });
  const offsets = useMemo(() => {
    const sums = [0];
    for (const height of heights) sums.push(sums[sums.length - 1]! + height);
    return sums;
  }, [heights]);
  useLayoutEffect(() => {
    const look = () => {
      const top = -(body.current?.getBoundingClientRect().top ?? 0);
      // A step, so that not each pixel is a new look.
      const rounded = Math.floor(top / 200) * 200;
      setView((known) => (known.top === rounded && known.bottom === rounded + innerHeight ? known : { top: rounded, bottom: rounded + innerHeight }));
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [heights]);
  const margin = 600;
  const first = Math.max(0, lowest(offsets, view.top - margin) - 1);
  const last = Math.min(heights.length, lowest(offsets, view.bottom + margin));
  return { body, first, last, before: offsets[first] ?? 0, after: (offsets[heights.length] ?? 0) - (offsets[last] ?? 0) };
}

/** The first place in rising numbers whose number is not below `least`. */
function lowest(rising: number[], least: number): number {
  let low = 0;
  let high = rising.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (rising[mid]! < least) low = mid + 1;
    else high = mid;
  }
  return low;
}

export function useNarrow(): boolean {
  const [narrow, setNarrow] = useState(() => matchMedia("(max-width: 600px)").matches);
  useEffect(() => {
    const asked = matchMedia("(max-width: 600px)");
    const moved = () => setNarrow(asked.matches);
    asked.addEventListener("change", moved);
    return () => asked.removeEventListener("change", moved);
  }, []);
  return narrow;
}

/** A question over the page; Escape leaves it. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => before?.focus();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <header>
        <h2 id={id}>{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={() => dialog.current?.close()}>✕</button>
      </header>
      {children}
    </dialog>
  );
}

/** A button for something that takes a while; meanwhile it cannot be pressed again. */
export function Act({ doing, children, ...rest }: {
  doing: () => Promise<unknown>;
  children: ComponentChildren;
  class?: string;
  disabled?: boolean;
}) {
  const [busy, setBusy] = useState(false);
  const press = async () => {
    setBusy(true);
    try {
      await doing();
    } finally {
      setBusy(false);
    }
  };
  return (
    <button type="button" {...rest} disabled={busy || rest.disabled} aria-busy={busy} onClick={() => void press()}>
      {children}
    </button>
  );
}

export function Labelled({ label, children }: { label: string; children: JSX.Element }) {
  return (
    <label class="labelled">
      <span>{label}</span>
      {children}
    </label>
  );
}

/** Names and numbers beside each other. */
export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {of.map(([name, told]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{told}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A number of each name as bars, the largest first. */
export function Bars({ of, told }: { of: [string, number][]; told: (n: number) => string }) {
  const most = Math.max(1, ...of.map(([, n]) => n));
  return (
    <dl class="bars">
      {of.map(([name, n]) => (
        <div key={name}>
          <dt>{plain(name)}</dt>
          <dd>
            <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
              <rect x="0" y="0" width={(100 * n) / most} height="10" />
            </svg>
            <span>{told(n)}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}
