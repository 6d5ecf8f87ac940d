// A list that goes on by a cursor.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "../api";
import { type Asked, useFollowed } from "../asking";
import { Act, Trouble } from "../parts";
import { useSession } from "../session";
import { count } from "../words";

type Page = { next_cursor: string | null } & Record<string, unknown>;
type Query = Record<string, string | number | undefined>;

/** Rows of a list on the page; with more of them each look at it would take longer. */
const MOST_ROWS = 500;

export interface Pages<T> {
  asked: Asked<Page>;
  rows: T[];
  cursor: string | null;
  more: () => Promise<void>;
  problem: Problem | null;
  again: () => void;
  /** It has become another list since, and was left as it is for whoever reads further down. */
  old: boolean;
  /** So many of its first rows have made room for later ones. */
  gone: number;
}

/**
 * The first page of `name` at `path`, and more of them when they are asked for. With another
 * `mark` the list is asked for anew, unless more of it than its first page is looked at.
 */
export function usePages<T>(key: string, path: string, name: string, query: Query = {}, mark = ""): Pages<T> {
  const { api } = useSession();
  const [rest, setRest] = useState<{ rows: T[]; cursor: string | null } | null>(null);
  const asked = useFollowed<Page>(key, (signal) => api.get(path, query, signal), mark, rest !== null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    setRest(null);
    setProblem(null);
  }, [asked.data]);
  const cursor = rest ? rest.cursor : (asked.data?.next_cursor ?? null);
  // More of another list, or of an older look, does not belong here.
  const first = useRef(asked.data);
  first.current = asked.data;
  const more = async () => {
    const of = asked.data;
    try {
      const page = await api.get<Page>(path, { ...query, cursor });
      if (first.current !== of) return;
      setProblem(null);
      setRest((known) => ({ rows: [...(known?.rows ?? []), ...(page[name] as T[])], cursor: page.next_cursor }));
    } catch (why) {
      if (first.current === of) setProblem(why as Problem);
    }
  };
  const rows = [...((asked.data?.[name] as T[] | undefined) ?? []), ...(rest?.rows ?? [])];
  const gone = Math.max(0, rows.length - MOST_ROWS);
  return { asked, gone, rows: rows.slice(gone), cursor, more, problem, again: asked.again, old: rest !== null && asked.old };
}

export function More<T>({ pages }: { pages: Pages<T> }) {
  return (
    <>
      <Trouble problem={pages.problem} />
      {pages.old ? <p class="soft">This list has changed since. <button type="button" class="quiet" onClick={pages.again}>Look again</button></p> : null}
      {pages.gone ? <p class="soft">The first {count(pages.gone)} of this list have made room for these. <button type="button" class="quiet" onClick={pages.again}>From the beginning</button></p> : null}
      {pages.cursor ? <Act doing={pages.more}>Show more</Act> : null}
    </>
  );
}
