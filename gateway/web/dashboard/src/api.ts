/** Calls the gateway. Types come from `/openapi.json`. */

import type { components, paths } from "./openapi";

export type Schemas = components["schemas"];
export type Session = Schemas["gateway.Session"];

type Verbs = "get" | "post" | "patch" | "delete";
type PathsWith<V extends Verbs> = {
  [P in keyof paths]: paths[P] extends { [K in V]: { responses: { 200: unknown } } } ? P : never;
}[keyof paths];
type Operation<P extends keyof paths, V extends Verbs> = paths[P] extends { [K in V]: infer O }
  ? O
  : never;
type Answer<O> = O extends { responses: { 200: { content: { "application/json": infer A } } } }
  ? A
  : never;
type InPath<O> = O extends { parameters: { path: infer T } } ? T : Record<never, never>;
type InQuery<O> = O extends { parameters: { query?: infer T } } ? T : never;
type InBody<O> = O extends { requestBody?: { content: { "application/json": infer B } } }
  ? B
  : never;

/** What the gateway said was wrong. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly violations: { field: string; description: string }[];

  constructor(status: number, message: string, details: Record<string, unknown>[]) {
    super(message);
    this.status = status;
    const info = details.find((detail) => typeof detail.reason === "string");
    this.reason = String(info?.reason ?? "");
    const bad = details.find((detail) => Array.isArray(detail.field_violations));
    this.violations = (bad?.field_violations ?? []) as { field: string; description: string }[];
  }
}

let whenSignedOut: () => void = () => undefined;

/** Have this called when an answer says that there is no session, or no longer. */
export function onSignedOut(listener: () => void): void {
  whenSignedOut = listener;
}

/** Whether there still is a session; where there isn't, the door is shown. */
export async function isSignedIn(): Promise<boolean> {
  const answer = await call("get", "/v1/session", undefined, undefined).catch(() => null);
  if (answer === undefined) whenSignedOut();
  return answer !== undefined;
}

async function ask(
  verb: string,
  url: string,
  body: unknown,
  signal: AbortSignal | undefined,
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {
      method: verb.toUpperCase(),
      headers: {
        "X-Shoptrail-Session": "1",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway can't be reached.", []);
  }
  if (response.ok) return response;
  const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const failure = (answer.error ?? {}) as { message?: string; details?: Record<string, unknown>[] };
  if (response.status === 401 && !url.startsWith("/v1/session")) whenSignedOut();
  throw new ApiError(
    response.status,
    failure.message ?? `The gateway answered ${response.status}.`,
    failure.details ?? [],
  );
}

async function call(
  verb: string,
  url: string,
  body: unknown,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const response = await ask(verb, url, body, signal);
  return response.status === 204 ? undefined : await response.json().catch(() => ({}));
}

type Values = Record<string, string | number | boolean | undefined | string[]>;

export function address(path: string, inPath: object, query: object = {}): string {
  const values = inPath as Values;
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String(values[name] ?? "")),
  );
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query as Values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== "") parameters.append(name, String(each));
    }
  }
  const text = parameters.toString();
  return text ? `${filled}?${text}` : filled;
}

export async function get<P extends PathsWith<"get">>(
  path: P,
  inPath: InPath<Operation<P, "get">>,
  query?: InQuery<Operation<P, "get">>,
  signal?: AbortSignal,
): Promise<Answer<Operation<P, "get">>> {
  const url = address(path, inPath as object, (query ?? {}) as object);
  return (await call("get", url, undefined, signal)) as Answer<Operation<P, "get">>;
}

/** What is answered as a file, and what its headers say of it. */
export async function getFile<P extends keyof paths>(
  path: P,
  inPath: InPath<Operation<P, "get">>,
  query: InQuery<Operation<P, "get">>,
  signal?: AbortSignal,
): Promise<{ content: Blob; headers: Headers }> {
  const url = address(path, inPath as object, query as object);
  const response = await ask("get", url, undefined, signal);
  return { content: await response.blob(), headers: response.headers };
}

export async function post<P extends PathsWith<"post">>(
  path: P,
  inPath: InPath<Operation<P, "post">>,
  body?: InBody<Operation<P, "post">>,
): Promise<Answer<Operation<P, "post">>> {
  const url = address(path, inPath as object);
  return (await call("post", url, body ?? {}, undefined)) as Answer<Operation<P, "post">>;
}

export async function remove<P extends PathsWith<"delete">>(
  path: P,
  inPath: InPath<Operation<P, "delete">>,
): Promise<Answer<Operation<P, "delete">>> {
  const url = address(path, inPath as object);
  return (await call("delete", url, undefined, undefined)) as Answer<Operation<P, "delete">>;
}
