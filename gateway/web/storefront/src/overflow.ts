/** Keeps events in IndexedDB when localStorage is full, as shops leave it that fill it themselves. */

type Ask<T> = (store: IDBObjectStore) => IDBRequest<T> | void;

let opening: Promise<IDBDatabase> | undefined;

/** Asks in a transaction; resolves to the answer once that is committed. */
async function commit<T>(ask: Ask<T>): Promise<T | undefined> {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("shoptrail", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("events");
    request.onsuccess = () => resolve(request.result);
    request.onerror = reject;
  });
  const database = await opening;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction("events", "readwrite");
    const request = ask(transaction.objectStore("events"));
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = reject;
  });
}

/** An event's id and its JSON. */
export type Entry = [id: string, text: string];

/** Rejects if it can't be kept. */
export const put = (entry: Entry): Promise<unknown> => commit((store) => store.put(entry, entry[0]));

export const drop = (entries: Entry[]): Promise<unknown> =>
  commit((store) => entries.forEach(([id]) => store.delete(id)));

/** All that is kept, by id in order; nothing if it can't be read. */
export const all = (): Promise<Entry[]> =>
  commit<Entry[]>((store) => store.getAll()).then(
    (entries) => entries ?? [],
    () => [],
  );
