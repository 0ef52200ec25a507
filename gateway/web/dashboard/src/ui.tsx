/** The parts that pages are made of. */

import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useId, useRef, useState } from "preact/hooks";

import type { ApiError } from "./api";
import type { Rows } from "./csv";
import type { Loaded } from "./data";
import { follow } from "./url";

const ICONS: Record<string, string> = {
  overview: "M3 13h4v8H3zM10 3h4v18h-4zM17 9h4v12h-4z",
  funnel: "M3 4h18l-7 9v6l-4 2v-8z",
  products: "M3 8l9-5 9 5v8l-9 5-9-5zM3 8l9 5 9-5M12 13v8",
  acquisition: "M12 3a9 9 0 1 0 9 9M12 7a5 5 0 1 0 5 5M12 12l9-9M16 3h5v5",
  attribution: "M5 5h5v5H5zM14 14h5v5h-5zM10 7.5h4a2 2 0 0 1 2 2V14",
  carts: "M3 4h3l2 11h10l2-8H7M9 20v.5M17 20v.5",
  reconcile: "M5 8h14M5 16h14M15 4l4 4-4 4M9 12l-4 4 4 4",
  retention: "M4 12a8 8 0 0 1 14-5l2 2M20 4v5h-5M20 12a8 8 0 0 1-14 5l-2-2M4 20v-5h5",
  searches: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14M20 20l-4-4",
  live: "M3 12h4l3-8 4 16 3-8h4",
  visitor: "M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8M4 21c1-5 4-7 8-7s7 2 8 7",
  events: "M4 6h16M4 12h16M4 18h10",
  rejected: "M12 3l9 17H3zM12 10v4M12 17v.5",
  delivery: "M4 12l5 5L20 6",
  export: "M12 15V4M7 9l5-5 5 5M4 20h16",
  rules: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  people: "M9 4a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7M2.5 20c.5-4 3-6 6.500-6s6 2 6.500 6M16 5a3 3 0 0 1 0 6M18 14.500c2 .7 3.200 2.500 3.500 5.500",
  keys: "M14 4a5 5 0 1 1-2 9l-7 7H3v-3l8-8a5 5 0 0 1 3-5zM15 8v.5",
  health: "M12 20s-8-5-8-11a4.500 4.500 0 0 1 8-2.500A4.500 4.500 0 0 1 20 9c0 6-8 11-8 11zM6 12h3l2-3 2 5 1.500-2H18",
  jobs: "M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16M12 8v4l3 2",
  menu: "M4 6h16M4 12h16M4 18h16",
  close: "M5 5l14 14M19 5L5 19",
  download: "M12 4v11M7 11l5 5 5-5M4 20h16",
  refresh: "M20 12a8 8 0 1 1-3-6l3 3M20 4v5h-5",
};

export function Icon({ name }: { name: string }): JSX.Element {
  return (
    <svg
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={ICONS[name] ?? ""} />
    </svg>
  );
}

export function Card(props: {
  title?: ComponentChildren;
  tools?: ComponentChildren;
  flush?: boolean;
  children: ComponentChildren;
}): JSX.Element {
  const id = useId();
  return (
    <section
      class={props.flush ? "card flush" : "card"}
      aria-labelledby={props.title ? id : undefined}
    >
      {(props.title || props.tools) && (
        <header>
          {props.title && <h2 id={id}>{props.title}</h2>}
          {props.tools && <div class="row">{props.tools}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

const ADVICE: Record<string, string> = {
  SCOPE_MISSING: "Sign in with a key that has this scope, or have one made.",
  WRONG_STORE: "Choose a store that your key opens.",
  KEY_NOT_VALID: "Sign in again.",
  DEPENDENCY_UNAVAILABLE: "A service is restarting or cut off. Try again in a moment.",
  OVERLOADED: "Try again in a moment.",
  NOT_FOUND: "It may have been deleted meanwhile.",
};

export function Failure(props: { error: ApiError; retry?: () => void }): JSX.Element {
  const { error, retry } = props;
  const advice = ADVICE[error.reason] ?? (error.status === 0 ? "Check that it runs." : "");
  return (
    <div class="failure" role="alert">
      <div>
        {error.violations.length
          ? error.violations.map((each) => (
              <div key={each.field}>
                <code>{each.field}</code> {each.description}
              </div>
            ))
          : error.message}
        {advice && ` ${advice}`}
      </div>
      {retry && (
        <div>
          <button type="button" onClick={retry}>
            Try again
          </button>
        </div>
      )}
    </div>
  );
}

/** Shows what was loaded; what is newer replaces it when it comes. */
export function Show<T>(props: {
  of: Loaded<T>;
  children: (data: T) => ComponentChildren;
}): JSX.Element {
  const { data, error, loading, reload } = props.of;
  if (error) return <Failure error={error} retry={reload} />;
  if (data === undefined) {
    return (
      <div class="waiting" role="status">
        {loading ? "Loading…" : ""}
      </div>
    );
  }
  return (
    <div class={loading ? "stale" : undefined} aria-busy={loading}>
      {props.children(data)}
    </div>
  );
}

export function Empty(props: { title: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <strong>{props.title}</strong>
      {props.children}
    </div>
  );
}

/** How to send a first event, for those who look where there is none. */
export function HowToSend({ event = "Product Viewed" }: { event?: string }): JSX.Element {
  const properties = event === "Order Completed" ? '{"order_id": "o-1", "total": 68.9, "currency": "EUR"}' : '{"sku": "42"}';
  const command = `curl -u "$WRITE_KEY:" ${location.origin}/v1/track \\
  -H 'Content-Type: application/json' \\
  -d '{"event": "${event}", "anonymousId": "me", "properties": ${properties}}'`;
  return (
    <>
      <p>
        Send one with a publishable key, which <a href="/keys" onClick={follow}>Keys</a> lists, or
        with any of Segment's SDKs:
      </p>
      <pre tabIndex={0}>{command}</pre>
    </>
  );
}

export interface Column<T> {
  name: string;
  /** Right-aligned. */
  num?: boolean;
  cell: (row: T) => ComponentChildren;
  /** What stands in the exported file; none if the column isn't exported. */
  csv?: (row: T) => string | number;
  hideNarrow?: boolean;
}

export function Table<T>(props: {
  label: string;
  columns: Column<T>[];
  rows: T[];
  keyOf: (row: T) => string;
  selected?: (row: T) => boolean;
}): JSX.Element {
  const { columns, rows } = props;
  const classes = (column: Column<T>): string =>
    [column.num ? "num" : "", column.hideNarrow ? "hide-narrow" : ""].join(" ").trim();
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={props.label}>
      <table>
        <caption class="unseen">{props.label}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" class={classes(column)}>
                {column.name || <span class="unseen">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={props.keyOf(row)} class="pick" data-selected={props.selected?.(row)}>
              {columns.map((column) => (
                <td key={column.name} class={classes(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function rowsOf<T>(columns: Column<T>[], rows: T[]): Rows {
  const exported = columns.filter((column) => column.csv);
  return [
    exported.map((column) => column.name),
    ...rows.map((row) => exported.map((column) => column.csv?.(row) ?? "")),
  ];
}

/** Names with bars behind them, the greatest first. */
export function Bars(props: {
  rows: { name: string; value: number; href?: string; title?: string }[];
  format: (value: number) => string;
  none?: string;
}): JSX.Element {
  const most = Math.max(1, ...props.rows.map((row) => row.value));
  if (!props.rows.length) return <p class="soft small">{props.none ?? "Nothing in this range."}</p>;
  return (
    <ul class="bars">
      {props.rows.map((row) => (
        <li key={row.name}>
          <svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">
            <rect width={(row.value / most) * 100} height="1" />
          </svg>
          {row.href ? (
            <a class="name" href={row.href} title={row.title ?? row.name} onClick={follow}>
              {row.name}
            </a>
          ) : (
            <span class="name" title={row.title ?? row.name}>
              {row.name}
            </span>
          )}
          <span class="num">{props.format(row.value)}</span>
        </li>
      ))}
    </ul>
  );
}

export function Segments<T extends string>(props: {
  label: string;
  options: readonly (readonly [T, string])[];
  value: T;
  onChange: (value: T) => void;
}): JSX.Element {
  return (
    <div class="segments" role="group" aria-label={props.label}>
      {props.options.map(([value, name]) => (
        <button
          key={value}
          type="button"
          aria-pressed={value === props.value}
          onClick={() => props.onChange(value)}
        >
          {name}
        </button>
      ))}
    </div>
  );
}

export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => ref.current?.showModal(), []);
  return (
    <dialog ref={ref} aria-labelledby={id} onClose={props.onClose}>
      <div class="inner">
        <div class="row apart">
          <h2 id={id}>{props.title}</h2>
          <button
            type="button"
            class="plain"
            aria-label="Close"
            onClick={() => ref.current?.close()}
          >
            <Icon name="close" />
          </button>
        </div>
        {props.children}
      </div>
    </dialog>
  );
}

interface Toast {
  id: number;
  text: string;
  undo?: () => void;
}
let toasts: Toast[] = [];
let showToasts: (next: Toast[]) => void = () => undefined;
let toastCount = 0;

export function toast(text: string, undo?: () => void): void {
  const id = ++toastCount;
  toasts = [...toasts.slice(-2), { id, text, ...(undo ? { undo } : {}) }];
  showToasts(toasts);
  setTimeout(() => dismiss(id), undo ? 12_000 : 5_000);
}

function dismiss(id: number): void {
  toasts = toasts.filter((each) => each.id !== id);
  showToasts(toasts);
}

export function Toasts(): JSX.Element {
  const [shown, setShown] = useState(toasts);
  showToasts = setShown;
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.map((each) => (
        <div class="toast" key={each.id}>
          <span>{each.text}</span>
          {each.undo && (
            <button
              type="button"
              onClick={() => {
                dismiss(each.id);
                each.undo?.();
              }}
            >
              Undo
            </button>
          )}
        </div>
      ))}
    </div>
  );
}

/** A text that is hard to type, and a button that copies it. */
export function Copy({ text, label }: { text: string; label: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  return (
    <div class="row">
      <code>{text}</code>
      <button
        type="button"
        aria-label={`Copy ${label}`}
        onClick={() =>
          void navigator.clipboard.writeText(text).then(() => {
            setCopied(true);
          })
        }
      >
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}
