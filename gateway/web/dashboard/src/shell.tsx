/** The frame around every page: navigation, what is looked at, and the palette. */

import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { get, post } from "./api";
import { exportScreen } from "./csv";
import { useData } from "./data";
import { dateTime } from "./format";
import { PAGES, type Page } from "./pages";
import { Door, Mark, may, useSession, type Session } from "./session";
import { setTheme, theme, type Theme } from "./theme";
import { COMPARISONS, dayOf, isZone, ownZone, PRESETS } from "./time";
import { Dialog, Empty, Failure, Icon, Toasts, toast } from "./ui";
import { follow, go, linkTo, refreshNow, setParameters, useView, type View } from "./url";

export function App(): JSX.Element {
  const [session, setSession] = useSession();
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = (): void => redraw((value) => value + 1);
    addEventListener("themechange", listener);
    return () => removeEventListener("themechange", listener);
  }, []);
  if (session === undefined) return <div class="waiting" role="status">Loading…</div>;
  if (session === null) return <Door onOpen={setSession} />;
  return <Frame session={session} onSignedOut={() => setSession(null)} />;
}

function Frame(props: { session: Session; onSignedOut: () => void }): JSX.Element {
  const { session } = props;
  const view = useView();
  const [open, setOpen] = useState(false);
  const [palette, setPalette] = useState(false);
  const [help, setHelp] = useState(false);
  const pages = PAGES.filter((page) => may(session, ...page.scopes));
  const page = PAGES.find((each) => each.path === view.page) ?? PAGES[0];
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(true);

  const signOut = async (everywhere: boolean): Promise<void> => {
    await post(everywhere ? "/v1/session:end-all" : "/v1/session:end", {}).catch(() => undefined);
    props.onSignedOut();
  };

  useEffect(() => {
    document.title = `${page?.title ?? ""} · Shoptrail`;
    setOpen(false);
    if (first.current) first.current = false;
    else heading.current?.focus({ preventScroll: true });
  }, [view.page]);

  useKeys(pages, () => setPalette(true), () => setHelp(true));

  const store = session.store_uid || view.store;
  const shown = page && may(session, ...page.scopes) ? page : undefined;
  const Shown = shown?.show;
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        heading.current?.focus();
      }}>
        Skip to content
      </a>
      <div class="frame">
        {open && <button class="veil" aria-label="Close navigation" onClick={() => setOpen(false)} />}
        <Side
          open={open}
          pages={pages}
          view={view}
          session={session}
          onPalette={() => setPalette(true)}
          onSignOut={(everywhere) => void signOut(everywhere)}
        />
        <main class="main" id="content">
          <div class="top">
            <div class="row">
              <button
                type="button"
                class="menu-button"
                aria-label="Navigation"
                aria-expanded={open}
                onClick={() => setOpen(true)}
              >
                <Icon name="menu" />
              </button>
              <h1 tabIndex={-1} ref={heading}>
                {page?.title}
              </h1>
            </div>
            {shown && <Controls page={shown} view={view} />}
          </div>
          {!shown || !Shown ? (
            <Empty title="Your key doesn't open this page">
              <p>
                It needs {page?.scopes.map((scope) => <code key={scope}>{scope}</code>)}. Sign in
                with a key that has it.
              </p>
            </Empty>
          ) : shown.ofStore && !store ? (
            <Stores />
          ) : (
            <Shown key={`${shown.path} ${store}`} view={{ ...view, store }} session={session} />
          )}
        </main>
      </div>
      {palette && (
        <Palette
          pages={pages}
          onClose={() => setPalette(false)}
          onHelp={() => setHelp(true)}
          onSignOut={(everywhere) => void signOut(everywhere)}
        />
      )}
      {help && <Help pages={pages} onClose={() => setHelp(false)} />}
      <Toasts />
    </>
  );
}

function Side(props: {
  open: boolean;
  pages: Page[];
  view: View;
  session: Session;
  onPalette: () => void;
  onSignOut: (everywhere: boolean) => void;
}): JSX.Element {
  const { pages, view, session } = props;
  const groups = ["Reports", "Events", "Operate"] as const;
  return (
    <aside class={props.open ? "side open" : "side"} aria-label="Navigation and session">
     <div class="inner">
      <a class="brand" href={linkTo("")} onClick={follow}>
        <Mark /> Shoptrail
      </a>
      <StorePicker session={session} view={view} />
      <nav aria-label="Pages">
        {groups.map((group) => {
          const inGroup = pages.filter((page) => page.group === group);
          return (
            inGroup.length > 0 && (
              <div key={group} class="group">
                <h2>{group}</h2>
                <ul>
                  {inGroup.map((page) => (
                    <li key={page.path}>
                      <a
                        href={linkTo(page.path)}
                        onClick={follow}
                        aria-current={page.path === view.page ? "page" : undefined}
                      >
                        <Icon name={page.path || "overview"} />
                        {page.title}
                      </a>
                    </li>
                  ))}
                </ul>
              </div>
            )
          );
        })}
      </nav>
      <div class="foot">
        <button type="button" onClick={props.onPalette}>
          <Icon name="searches" /> Search <kbd>Ctrl K</kbd>
        </button>
        <label class="field">
          Theme
          <select
            value={theme()}
            onChange={(event) => setTheme(event.currentTarget.value as Theme)}
          >
            <option value="auto">As the system</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
        </label>
        <button
          type="button"
          title={`Until ${dateTime(session.expire_time, view.zone)}`}
          onClick={() => props.onSignOut(false)}
        >
          Sign out
        </button>
      </div>
     </div>
    </aside>
  );
}

function StorePicker({ session, view }: { session: Session; view: View }): JSX.Element | null {
  const canList = may(session, "stores:read");
  const stores = useData(canList ? session.key_uid : null, (signal) =>
    get("/v1/stores", {}, { page_size: 500 }, signal),
  );
  if (!canList || !stores.data) return null;
  if (session.store_uid) {
    return (
      <div class="soft small" style={{ padding: "0 10px" }}>
        {stores.data.stores[0]?.display_name}
      </div>
    );
  }
  return (
    <select
      aria-label="Store"
      value={view.store}
      onChange={(event) => setParameters({ store: event.currentTarget.value })}
    >
      <option value="">Choose a store…</option>
      {stores.data.stores.map((store) => (
        <option key={store.uid} value={store.uid}>
          {store.display_name}
        </option>
      ))}
    </select>
  );
}

function Stores(): JSX.Element {
  const stores = useData("stores", (signal) => get("/v1/stores", {}, { page_size: 500 }, signal));
  if (stores.error) return <Failure error={stores.error} retry={stores.reload} />;
  return (
    <Empty title={stores.data?.stores.length === 0 ? "There is no store yet" : "Which store?"}>
      {stores.data?.stores.length === 0 && (
        <pre tabIndex={0}>bin/shoptrail stores create "Tea and cups"</pre>
      )}
      <ul class="stack">
        {stores.data?.stores.map((store) => (
          <li key={store.uid}>
            <button type="button" onClick={() => setParameters({ store: store.uid })}>
              {store.display_name}
            </button>
          </li>
        ))}
      </ul>
    </Empty>
  );
}

const ZONES = [
  ...new Set([ownZone(), "UTC", "Europe/London", "Europe/Berlin", "America/New_York",
    "America/Los_Angeles", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Tokyo", "Australia/Sydney"]),
];

function Controls({ page, view }: { page: Page; view: View }): JSX.Element {
  const [asking, setAsking] = useState(false);
  const chooseZone = (zone: string): void => {
    if (zone === "other") setAsking(true);
    else setParameters({ tz: zone === ownZone() ? "" : zone });
  };
  return (
    <div class="row controls">
      {page.ranged && (
        <>
          <select
            aria-label="Range"
            value={view.preset}
            onChange={(event) => {
              const range = event.currentTarget.value;
              const last = view.range.end.getTime() - 1;
              setParameters({
                range: range === "7d" ? "" : range,
                from: range === "custom" ? dayOf(view.range.start.getTime(), view.zone) : "",
                to: range === "custom" ? dayOf(last, view.zone) : "",
              });
              refreshNow();
            }}
          >
            {Object.entries(PRESETS).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
          {view.preset === "custom" && (
            <>
              <input
                type="date"
                aria-label="From"
                value={view.from}
                max={view.to}
                onChange={(event) => setParameters({ from: event.currentTarget.value })}
              />
              <input
                type="date"
                aria-label="To"
                value={view.to}
                min={view.from}
                onChange={(event) => setParameters({ to: event.currentTarget.value })}
              />
            </>
          )}
        </>
      )}
      {page.ranged === "compared" && (
        <select
          aria-label="Comparison"
          value={view.comparison}
          onChange={(event) => {
            const compare = event.currentTarget.value;
            setParameters({ compare: compare === "previous" ? "" : compare });
          }}
        >
          {Object.entries(COMPARISONS).map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      )}
      <select
        aria-label="Time zone"
        value={view.zone}
        onChange={(event) => chooseZone(event.currentTarget.value)}
      >
        {[...new Set([...ZONES, view.zone])].map((zone) => (
          <option key={zone} value={zone}>
            {zone.replaceAll("_", " ")}
          </option>
        ))}
        <option value="other">Other…</option>
      </select>
      {page.ranged && (
        <button type="button" aria-label="Up to now" title="Up to now" onClick={refreshNow}>
          <Icon name="refresh" />
        </button>
      )}
      <button
        type="button"
        title="Save what is on the screen as CSV"
        onClick={() => {
          if (!exportScreen()) toast("There is nothing to save here yet.");
        }}
      >
        <Icon name="download" /> CSV
      </button>
      {asking && <ZoneDialog onClose={() => setAsking(false)} onChoose={chooseZone} />}
    </div>
  );
}

function ZoneDialog(props: {
  onClose: () => void;
  onChoose: (zone: string) => void;
}): JSX.Element {
  const [zone, setZone] = useState("");
  const all = useMemo(() => Intl.supportedValuesOf("timeZone"), []);
  return (
    <Dialog title="Time zone" onClose={props.onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isZone(zone)) return;
          props.onChoose(zone);
          props.onClose();
        }}
      >
        <label class="field">
          Its name in the IANA database
          <input
            list="zones"
            required
            placeholder="Europe/Lisbon"
            value={zone}
            onInput={(event) => setZone(event.currentTarget.value)}
          />
        </label>
        <datalist id="zones">
          {all.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
        <div>
          <button type="submit" class="primary" disabled={!isZone(zone) || !zone}>
            Use it
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface Command {
  name: string;
  hint: string;
  run: () => void;
}

function Palette(props: {
  pages: Page[];
  onClose: () => void;
  onHelp: () => void;
  onSignOut: (everywhere: boolean) => void;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  // Before the next key is pressed, which is meant for it.
  useLayoutEffect(() => ref.current?.showModal(), []);
  const commands: Command[] = [
    ...props.pages.map((page) => ({
      name: page.title,
      hint: `g ${page.key}`,
      run: () => go(linkTo(page.path)),
    })),
    ...Object.entries(PRESETS)
      .filter(([value]) => value !== "custom")
      .map(([value, name]) => ({
        name: `Range: ${name}`,
        hint: "",
        run: () => setParameters({ range: value === "7d" ? "" : value, from: "", to: "" }),
      })),
    {
      name: "Copy a link to this view",
      hint: "",
      run: () => void navigator.clipboard.writeText(location.href).then(() => toast("Copied.")),
    },
    { name: "Save as CSV", hint: "c", run: () => void exportScreen() },
    { name: "Theme: light", hint: "", run: () => setTheme("light") },
    { name: "Theme: dark", hint: "", run: () => setTheme("dark") },
    { name: "Theme: as the system", hint: "", run: () => setTheme("auto") },
    { name: "Keyboard shortcuts", hint: "?", run: props.onHelp },
    { name: "Sign out", hint: "", run: () => props.onSignOut(false) },
    {
      name: "Sign out everywhere",
      hint: "ends all sessions of this key",
      run: () => props.onSignOut(true),
    },
  ];
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = commands.filter((command) =>
    words.every((word) => command.name.toLowerCase().includes(word)),
  );
  const chosen = Math.min(at, found.length - 1);
  const run = (command: Command | undefined): void => {
    ref.current?.close();
    command?.run();
  };
  return (
    <dialog ref={ref} class="palette" aria-label="Go to, or do" onClose={props.onClose}>
      <input
        type="text"
        role="combobox"
        aria-label="Go to, or do"
        aria-expanded="true"
        aria-controls="commands"
        aria-activedescendant={found.length ? `command-${chosen}` : undefined}
        placeholder="Go to, or do…"
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt(Math.min(found.length - 1, chosen + 1));
          else if (event.key === "ArrowUp") setAt(Math.max(0, chosen - 1));
          else if (event.key === "Enter") run(found[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="commands" role="listbox" aria-label="Commands">
        {found.map((command, index) => (
          <li
            key={command.name}
            id={`command-${index}`}
            role="option"
            aria-selected={index === chosen}
            onClick={() => run(command)}
            onMouseMove={() => setAt(index)}
          >
            {command.name}
            <span class="soft small">{command.hint}</span>
          </li>
        ))}
      </ul>
    </dialog>
  );
}

function Help({ pages, onClose }: { pages: Page[]; onClose: () => void }): JSX.Element {
  const rows = [
    ["Ctrl K", "Go to a page, or do something"],
    ["c", "Save what is on the screen as CSV"],
    ["?", "These shortcuts"],
    ...pages.map((page) => [`g ${page.key}`, page.title]),
  ];
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose}>
      <table>
        <tbody>
          {rows.map(([keys, meaning]) => (
            <tr key={keys}>
              <td class="tight">
                <kbd>{keys}</kbd>
              </td>
              <td>{meaning}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}

function useKeys(pages: Page[], onPalette: () => void, onHelp: () => void): void {
  const latest = useRef({ pages, onPalette, onHelp });
  latest.current = { pages, onPalette, onHelp };
  useEffect(() => {
    let going = 0;
    const listener = (event: KeyboardEvent): void => {
      const { pages: known, onPalette: ask, onHelp: help } = latest.current;
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        if (!document.querySelector("dialog[open]")) ask();
        return;
      }
      const target = event.target as Element;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (target.closest("input, select, textarea, dialog")) return;
      if (Date.now() - going < 1500) {
        going = 0;
        const page = known.find((each) => each.key === event.key);
        if (page) go(linkTo(page.path));
        return;
      }
      if (event.key === "g") going = Date.now();
      else if (event.key === "?") help();
      else if (event.key === "c") exportScreen();
    };
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, []);
}
