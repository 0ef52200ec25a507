/** Who is signed in, and at which door others wait. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, get, onSignedOut, post, type Session } from "./api";
import { Failure } from "./ui";

export type { Session };

export function may(session: Session, ...scopes: string[]): boolean {
  return scopes.every((scope) => session.scopes.includes(scope));
}

/** `undefined` until it is known whether there is a session; null if there is none. */
export function useSession(): [Session | null | undefined, (next: Session | null) => void] {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  useEffect(() => {
    onSignedOut(() => setSession(null));
    get("/v1/session", {}).then(
      (session: Session | undefined) => setSession(session ?? null),
      () => setSession(null),
    );
  }, []);
  return [session, setSession];
}

export function Door(props: { onOpen: (session: Session) => void }): JSX.Element {
  const [key, setKey] = useState("");
  const [failure, setFailure] = useState<ApiError>();
  const [busy, setBusy] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Sign in · Shoptrail";
    input.current?.focus();
  }, []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setFailure(undefined);
    try {
      props.onOpen(await post("/v1/session", {}, { key: key.trim() }));
    } catch (error) {
      setFailure(
        error instanceof ApiError && error.status === 401
          ? new ApiError(401, "This key doesn't work: it is mistyped, expired or revoked.", [])
          : (error as ApiError),
      );
      input.current?.focus();
    }
    setBusy(false);
  };
  return (
    <main class="door">
      <form onSubmit={(event) => void submit(event)}>
        <h1 class="brand">
          <Mark /> Shoptrail
        </h1>
        <div class="card">
          <label class="field" for="key">
            Secret key
          </label>
          <input
            id="key"
            ref={input}
            type="password"
            autocomplete="current-password"
            spellcheck={false}
            placeholder="sk_live_…"
            required
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
          {failure && <Failure error={failure} />}
          <button class="primary" type="submit" disabled={busy || !key.trim()}>
            {busy ? "Signing in…" : "Sign in"}
          </button>
          <p class="soft small">
            <code>make run</code> prints one, and <code>bin/shoptrail keys create</code> makes more.
            The key is exchanged for a session and not kept in this browser.
          </p>
        </div>
      </form>
    </main>
  );
}

export function Mark(): JSX.Element {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0f766e" />
      <path
        d="M7 22c3 0 3-6 6-6s3 4 6 4 3-10 6-10"
        fill="none"
        stroke="#fff"
        stroke-width="3"
        stroke-linecap="round"
      />
    </svg>
  );
}
