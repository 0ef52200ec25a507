/** Makes events of what the shop's pages tell, in the shape of Segment's tracking API. */

import { METHODS, type Ecommerce, type EcommerceMethods } from "./catalogue";
import * as delivery from "./delivery";
import type { Answer } from "./delivery";
import * as device from "./device";
import * as queue from "./queue";
import * as visitor from "./visitor";

export type { Answer };
export type * from "./catalogue";

/** Anything that JSON can say. */
export type Properties = Record<string, unknown>;

/** What the visitor agrees to: to everything, to nothing, or by category. */
export type Consent = boolean | Record<string, boolean>;

export interface Settings {
  /** The store's publishable key. */
  key: string;
  /** Where events are sent, such as `https://shop.example/st/v1/batch`. */
  endpoint: string;
  /**
   * `"required"`: until the visitor agrees nothing is kept on the device and nothing sent.
   * `"cookieless"`: until then nothing is kept on the device, and each page has a visitor
   * of its own.
   */
  consent?: string | undefined;
  /** `"gpc"`, `"dnt"` or both: browsers' signals that are a refusal until `consent` is called. */
  respect?: string | undefined;
  /** The domain whose pages share the visitor's cookie. If empty, the page's own host. */
  domain?: string | undefined;
}

/** What a caller may say of a single event. */
export interface Options {
  messageId?: string;
  timestamp?: Date;
  context?: Properties;
}

/**
 * What an event `shoptrail` of `document` tells: that something was tracked, or what became of
 * those events with these message ids. The status is 0 if there was no answer.
 */
export type News =
  | { event: Properties }
  | { status: number; answer: Answer | undefined; ids: string[] };

/** Tells Shoptrail what happens in a page. */
export interface Tracker extends EcommerceMethods {
  /** Tells that something has happened, such as `Product Viewed`. */
  track<Name extends string>(
    event: Name,
    properties?: Name extends keyof Ecommerce ? Ecommerce[Name] : Properties,
    options?: Options,
  ): void;
  /** Tells that a page is seen; its address and title are added. */
  page(name?: string, properties?: Properties, options?: Options): void;
  /** Tells who the visitor is, and what is known of them. */
  identify(userId?: string | number | null, traits?: Properties, options?: Options): void;
  /** Tells to which group the visitor belongs, such as a company. */
  group(groupId: string | number, traits?: Properties, options?: Options): void;
  /** Tells that two ids are the same person's. */
  alias(userId: string | number, previousId?: string | number, options?: Options): void;
  /** Forgets who the visitor is, as after a log-out. What was tracked is still sent. */
  reset(): void;
  /**
   * Tells what the visitor agrees to. The category `analytics` decides, if there is one, and else
   * whether they agree to anything. A refusal removes all that is kept on the device.
   */
  consent(given: Consent): void;
  /** Sends what there is; resolves when that is done, or has to wait. */
  flush(): Promise<void>;
}

const VERSION = "0.1.0";

/** The page's tracker. A page has one. */
export function createTracker(settings: Settings): Tracker {
  const { domain = "", respect = "" } = settings;
  const cookieless = settings.consent === "cookieless";
  let categories: Consent | undefined;
  // If not, events are not even made.
  let enabled = true;
  let { referrer } = document;
  let address = location.href;

  const announce = (detail: object): void => {
    document.dispatchEvent(new CustomEvent("shoptrail", { detail }));
  };

  const where = (): Properties => ({
    url: location.href.split("#")[0],
    path: location.pathname,
    search: location.search,
    title: document.title,
    referrer,
  });

  function add(type: string, fields: Properties, options: Options = {}): void {
    if (!enabled) return;
    const { a, u, g, v, n } = visitor.get();
    visitor.change({ n: n + 1 }, domain);
    const now = new Date();
    // The queue sorts by it.
    const id = options.messageId ?? `${+now}-${`${n}`.padStart(6, "0")}-${device.random()}`;
    const event: Properties = {
      type,
      ...fields,
      messageId: id,
      anonymousId: a,
      userId: u,
      originalTimestamp: options.timestamp ?? now,
      context: {
        page: where(),
        locale: navigator.language,
        userAgent: navigator.userAgent,
        library: { name: "shoptrail.js", version: VERSION },
        groupId: g,
        consent: typeof categories === "object" ? { categoryPreferences: categories } : undefined,
        shoptrail: { visitor: v, sequence: n + 1 },
        ...options.context,
      },
    };
    queue.add([id, JSON.stringify(event)]);
    announce({ event });
    delivery.soon();
  }

  function agree(): void {
    enabled = true;
    device.allow(true);
    visitor.change({}, domain);
    queue.persist();
    delivery.permit(true);
  }

  const tracker: Omit<Tracker, keyof EcommerceMethods> = {
    track: (event, properties, options) =>
      add("track", { event, properties: properties ?? {} }, options),
    page(name, properties, options) {
      if (location.href !== address) {
        referrer = address;
        address = location.href;
      }
      add("page", { name, properties: { ...where(), name, ...properties } }, options);
    },
    identify(id, traits = {}, options) {
      if (id) visitor.change({ u: `${id}` }, domain);
      add("identify", { traits }, options);
    },
    group(id, traits = {}, options) {
      visitor.change({ g: `${id}` }, domain);
      add("group", { groupId: `${id}`, traits }, options);
    },
    alias(id, previousId, options) {
      const { u, a } = visitor.get();
      visitor.change({ u: `${id}` }, domain);
      add("alias", { previousId: `${previousId ?? u ?? a}` }, options);
    },
    reset: () => visitor.reset(domain),
    consent(given) {
      categories = given;
      if (typeof given === "object" ? (given.analytics ?? Object.values(given).includes(true)) : given) {
        agree();
        device.write("consent", JSON.stringify(given));
        return;
      }
      enabled = cookieless;
      delivery.permit(enabled);
      visitor.reset(domain);
      if (!cookieless) queue.clear();
      // Where the shop asks first, no word is a refusal. Elsewhere it must be remembered.
      if (settings.consent) device.remove("consent");
      else device.write("consent", "false");
      device.allow(false);
      device.remove("wait");
    },
    flush: delivery.flush,
  };

  delivery.start(settings.endpoint, settings.key, announce);
  const { globalPrivacyControl, doNotTrack } = navigator as Navigator & {
    globalPrivacyControl?: boolean;
  };
  const remembered = device.read("consent");
  if (remembered) tracker.consent(JSON.parse(remembered) as Consent);
  else if (
    (respect.includes("gpc") && globalPrivacyControl) ||
    (respect.includes("dnt") && doNotTrack === "1")
  )
    enabled = false;
  else if (settings.consent) delivery.permit(cookieless);
  else agree();

  const named = tracker as unknown as Record<string, unknown>;
  for (const method of METHODS.split(" ")) {
    const event = method
      .replace(/[A-Z]/g, " $&")
      .replace(/^./, (letter) => letter.toUpperCase())
      .replace(/ (To|From) /g, (word) => word.toLowerCase());
    named[method] = (properties?: Properties, options?: Options) =>
      tracker.track(event, properties as never, options);
  }
  return named as unknown as Tracker;
}
