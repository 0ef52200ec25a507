/**
 * Reads what a shop already tells Google Analytics 4 in its `dataLayer`, and tells Shoptrail too.
 *
 * https://developers.google.com/analytics/devguides/collection/ga4/ecommerce
 */

import type { Product, Properties } from "./tracker";

/** As GA4 has it: an item of `items`. */
export type Item = Record<string, unknown>;
type Given = Properties & { items?: Item[] };
type Told = [event: string, properties: Properties];

const MAPPING: Record<string, string> = {
  view_item_list: "Product List Viewed",
  select_item: "Product Clicked",
  view_item: "Product Viewed",
  add_to_cart: "Product Added",
  remove_from_cart: "Product Removed",
  add_to_wishlist: "Product Added to Wishlist",
  view_cart: "Cart Viewed",
  begin_checkout: "Checkout Started",
  add_shipping_info: "Checkout Step Completed",
  add_payment_info: "Payment Info Entered",
  purchase: "Order Completed",
  refund: "Order Refunded",
  view_promotion: "Promotion Viewed",
  select_promotion: "Promotion Clicked",
  search: "Products Searched",
  view_search_results: "Products Searched",
};
/** Those that Shoptrail has of a single product. */
const OF_A_PRODUCT = ["select_item", "view_item", "add_to_cart", "remove_from_cart", "add_to_wishlist"];

/** What Shoptrail is told when GA4 is told this; nothing if it isn't about the shop. */
export function translate(name: string, given: Given): Told[] {
  const event = MAPPING[name];
  if (!event) return [];
  const items = given.items ?? [];
  const { currency, value } = given;
  if (OF_A_PRODUCT.includes(name)) {
    return items.map((item) => [
      event,
      stripped({ ...productOf(item), currency, value: items.length > 1 ? undefined : value }),
    ]);
  }
  return [[event, stripped({ ...more(name, given), products: items.map(productOf) })]];
}

function more(name: string, given: Given): Properties {
  const { currency, value, coupon, shipping, tax } = given;
  switch (name) {
    case "view_item_list":
      return { list_id: given.item_list_id, category: given.item_list_name };
    case "begin_checkout":
    case "view_cart":
      return { value, currency, coupon };
    case "add_shipping_info":
      return { step: "shipping", shipping_method: given.shipping_tier };
    case "add_payment_info":
      return { step: "payment", payment_method: given.payment_type };
    case "purchase":
      // GA4's value has neither shipping nor tax in it.
      return {
        order_id: given.transaction_id,
        affiliation: given.affiliation,
        revenue: value,
        total: sum([value, shipping, tax]),
        shipping,
        tax,
        currency,
        coupon,
      };
    case "refund":
      return { order_id: given.transaction_id, total: value, currency };
    case "view_promotion":
    case "select_promotion":
      return {
        promotion_id: given.promotion_id,
        name: given.promotion_name,
        creative: given.creative_name,
        position: given.creative_slot,
      };
    default:
      return { query: given.search_term };
  }
}

function productOf(item: Item): Product {
  const categories = ["", 2, 3, 4, 5].map((level) => item[`item_category${level}`]).filter(Boolean);
  return stripped({
    product_id: item.item_id,
    name: item.item_name,
    brand: item.item_brand,
    category: categories.join("/") || undefined,
    variant: item.item_variant,
    price: item.price,
    quantity: item.quantity,
    coupon: item.coupon,
    position: item.index,
  });
}

/** The sum of amounts, exact, as a text; undefined if the first is none. */
export function sum(amounts: unknown[]): string | undefined {
  const read = amounts.map((amount) => /^(-?\d+)(?:\.(\d{1,6}))?$/.exec(`${amount ?? 0}`));
  if (amounts[0] === undefined || read.some((each) => !each)) return undefined;
  const total = read.reduce(
    (millionths, each) => millionths + +`${each?.[1]}${(each?.[2] ?? "").padEnd(6, "0")}`,
    0,
  );
  return (total / 1e6).toFixed(6).replace(/0{1,4}$/, "");
}

function stripped(properties: Properties): Properties {
  const said = Object.entries(properties).filter(
    ([, value]) => value !== undefined && !(Array.isArray(value) && !value.length),
  );
  return Object.fromEntries(said);
}

/** Tells of everything in the list, and of what is pushed to it from now on. */
export function follow(
  dataLayer: unknown[],
  tell: (event: string, properties: Properties) => void,
): void {
  const look = (entry: unknown): void => {
    // `gtag("event", name, parameters)` pushes its arguments, a tag manager's pages an object.
    const each = entry as ArrayLike<unknown> & { event?: unknown; ecommerce?: Given };
    try {
      const told =
        each[0] === "event"
          ? translate(`${each[1]}`, (each[2] ?? {}) as Given)
          : translate(`${each.event}`, { ...(entry as Given), ...each.ecommerce });
      told.forEach(([event, properties]) => tell(event, properties));
    } catch {
      // What somebody else's tag pushes must not stop it.
    }
  };
  dataLayer.forEach(look);
  const push = dataLayer.push;
  dataLayer.push = function (...entries: unknown[]) {
    const length = push.apply(this, entries);
    entries.forEach(look);
    return length;
  };
}
