/** The shop's pages. */

import * as cart from "./cart";
import { type Child, h } from "./dom";
import { amount, euros, find, type Good, GOODS, pictureOf } from "./goods";
import { tell, tellNext } from "./tell";

export interface Page {
  title: string;
  content: Child[];
}

type Go = (path: string) => void;

export const BASE = "/demo";
const CURRENCY = "EUR";

/** The page at a path of the shop. */
export function pageAt(path: string, query: URLSearchParams, go: Go): Page {
  const [, first = "", second = ""] = path.split("/");
  const good = find(second);
  if (first === "") return catalogue(query.get("category") ?? "", go);
  if (first === "search") return found(query.get("q") ?? "", go);
  if (first === "products" && good) return product(good, go);
  if (first === "cart") return basket(go);
  if (first === "checkout") return checkout(go);
  if (first === "thanks") return thanks(second, go);
  return { title: "Nothing here", content: [h("h1", {}, "Nothing here"), link("/", "To the shop", go)] };
}

export function link(path: string, text: Child, go: Go, attributes: Record<string, string> = {}): HTMLElement {
  const click = (event: Event): void => {
    const { metaKey, ctrlKey, shiftKey } = event as MouseEvent;
    if (metaKey || ctrlKey || shiftKey) return;
    event.preventDefault();
    go(path);
  };
  return h("a", { href: BASE + path, click, ...attributes }, text);
}

function catalogue(category: string, go: Go): Page {
  const goods = GOODS.filter((good) => !category || good.category === category);
  tellNext("productListViewed", {
    list_id: category || "all",
    category: category || "All",
    products: goods.map(cart.productOf),
  });
  if (!category) tellNext("promotionViewed", { promotion_id: "autumn", name: "Autumn box" });
  const chips = ["", "Tea", "Teaware"].map((each) =>
    link(each ? `/?category=${each}` : "/", each || "Everything", go, {
      class: "chip",
      ...(each === category ? { "aria-current": "page" } : {}),
    }),
  );
  const banner = h(
    "section",
    { class: "banner", "aria-label": "Offer" },
    h("div", {}, h("p", { class: "small" }, "This week"), h("p", { class: "big" }, "Ten per cent off with ", h("strong", {}, cart.COUPON))),
    link("/products/oolong", "Start with the oolong", go, {
      class: "button light",
      "data-shoptrail-event": "Promotion Clicked",
      "data-shoptrail-promotion-id": "autumn",
      "data-shoptrail-name": "Autumn box",
    }),
  );
  return {
    title: category || "Leaf & Kettle",
    content: [
      h("h1", { class: category ? "" : "hidden" }, category || "Tea, and what to make it in"),
      !category && banner,
      h("nav", { class: "chips", "aria-label": "Categories" }, ...chips),
      shelf(goods, go),
    ],
  };
}

function shelf(goods: Good[], go: Go): HTMLElement {
  const cards = goods.map((good, position) =>
    h(
      "li",
      {},
      link(
        `/products/${good.id}`,
        h(
          "div",
          {},
          h("div", { class: "plate" }, pictureOf(good)),
          h("h2", {}, good.name),
          h("p", { class: "price" }, euros(good.price)),
        ),
        go,
        {
          class: "card",
          // All that it takes to tell of a click.
          "data-shoptrail-event": "Product Clicked",
          "data-shoptrail-product-id": good.id,
          "data-shoptrail-name": good.name,
          "data-shoptrail-price": amount(good.price),
          "data-shoptrail-position": `${position + 1}`,
        },
      ),
    ),
  );
  return h("ul", { class: "shelf" }, ...cards);
}

function found(query: string, go: Go): Page {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const goods = GOODS.filter((good) =>
    words.every((word) => `${good.name} ${good.category} ${good.text}`.toLowerCase().includes(word)),
  );
  tellNext("productsSearched", { query, result_count: goods.length });
  return {
    title: `Search: ${query}`,
    content: [
      h("h1", {}, goods.length ? `Found for “${query}”` : `Nothing for “${query}”`),
      goods.length ? shelf(goods, go) : h("p", {}, "Try “tea”, or “clay”."),
    ],
  };
}

function product(good: Good, go: Go): Page {
  tellNext("productViewed", { ...cart.productOf(good), currency: CURRENCY, value: amount(good.price) });
  const quantity = h("input", { id: "quantity", type: "number", min: "1", max: "9", value: "1" });
  const added = h("p", { class: "done", role: "status" });
  const put = (event: Event): void => {
    event.preventDefault();
    const many = Math.min(9, Math.max(1, Number(quantity.value) || 1));
    cart.add(good, many);
    tell("productAdded", { cart_id: cart.id(), ...cart.productOf(good), quantity: many, currency: CURRENCY });
    added.replaceChildren("In the cart. ", link("/cart", "See it", go));
  };
  return {
    title: good.name,
    content: [
      h(
        "div",
        { class: "product" },
        h("div", { class: "plate large" }, pictureOf(good)),
        h(
          "div",
          {},
          h("p", { class: "small" }, good.category),
          h("h1", {}, good.name),
          h("p", { class: "price" }, euros(good.price)),
          h("p", {}, good.text),
          h(
            "form",
            { submit: put, class: "row" },
            h("label", { for: "quantity" }, "How many"),
            quantity,
            h("button", { class: "button" }, "Add to cart"),
          ),
          added,
        ),
      ),
    ],
  };
}

function basket(go: Go): Page {
  tellNext("cartViewed", { cart_id: cart.id(), products: cart.products() });
  const title = "Your cart";
  if (!cart.count()) {
    return { title, content: [h("h1", {}, title), h("p", {}, "It is empty. ", link("/", "Fill it", go))] };
  }
  const rows = cart.lines().map(({ good, quantity }) =>
    h(
      "li",
      {},
      h("div", { class: "plate tiny" }, pictureOf(good)),
      h("span", { class: "grow" }, good.name, h("small", {}, ` × ${quantity}`)),
      h("span", {}, euros(good.price * quantity)),
      h(
        "button",
        {
          class: "plain",
          "aria-label": `Remove ${good.name}`,
          click: () => {
            cart.remove(good);
            tell("productRemoved", { cart_id: cart.id(), ...cart.productOf(good), quantity });
            go("/cart");
          },
        },
        "Remove",
      ),
    ),
  );
  return {
    title,
    content: [
      h("h1", {}, title),
      h("ul", { class: "lines" }, ...rows),
      couponForm(go),
      totals(),
      link("/checkout", "Check out", go, { class: "button" }),
    ],
  };
}

function couponForm(go: Go): HTMLElement {
  const said = h("p", { class: "done", role: "status" });
  const field = h("input", { id: "coupon", name: "coupon", autocomplete: "off" });
  const enter = (event: Event): void => {
    event.preventDefault();
    const code = field.value.trim().toUpperCase();
    if (!code) return;
    const facts = { cart_id: cart.id(), coupon_id: code };
    tell("couponEntered", facts);
    if (code === cart.COUPON) {
      cart.apply(code);
      tell("couponApplied", { ...facts, discount: amount(cart.sums().discount) });
      go("/cart");
    } else {
      tell("couponDenied", { ...facts, reason: "unknown" });
      said.textContent = "We don't know this one.";
    }
  };
  if (cart.coupon()) return h("p", { class: "done" }, `${cart.coupon()} is applied.`);
  return h(
    "form",
    { submit: enter, class: "row" },
    h("label", { for: "coupon" }, "Coupon"),
    field,
    h("button", { class: "button light" }, "Apply"),
    said,
  );
}

function totals(): HTMLElement {
  const { goods, discount, shipping, total } = cart.sums();
  const row = (name: string, cents: number, kind = ""): Child[] => [
    h("dt", { class: kind }, name),
    h("dd", { class: kind }, euros(cents)),
  ];
  return h(
    "dl",
    { class: "totals" },
    ...row("Goods", goods),
    ...(discount ? row("Discount", -discount) : []),
    ...row("Shipping", shipping),
    ...row("Total", total, "sum"),
  );
}

interface Order {
  order_id: string;
  total: string;
  currency: string;
  products: object[];
  [more: string]: unknown;
}

const placed = new Map<string, { order: Order; refunded: boolean }>();

function orderOf(): Order {
  const { goods, discount, shipping, tax, total } = cart.sums();
  return {
    order_id: `D-${Date.now().toString(36).toUpperCase()}`,
    subtotal: amount(goods - discount),
    revenue: amount(total - shipping - tax),
    discount: amount(discount),
    shipping: amount(shipping),
    tax: amount(tax),
    total: amount(total),
    currency: CURRENCY,
    coupon: cart.coupon(),
    products: cart.products(),
  };
}

function checkout(go: Go): Page {
  const title = "Check out";
  if (!cart.count()) return basket(go);
  const order = orderOf();
  tellNext("checkoutStarted", { ...order, value: order.total });
  const name = h("input", { id: "name", autocomplete: "name", required: true, value: "Ada Lovelace" });
  const pay = h(
    "select",
    { id: "pay" },
    h("option", { value: "card" }, "Card"),
    h("option", { value: "invoice" }, "Invoice"),
  );
  const buy = (event: Event): void => {
    event.preventDefault();
    const step = { checkout_id: order.order_id, payment_method: pay.value };
    tell("paymentInfoEntered", { ...step, order_id: order.order_id });
    tell("checkoutStepCompleted", { ...step, step: 1 });
    tell("orderCompleted", { ...order, checkout_id: order.order_id });
    placed.set(order.order_id, { order, refunded: false });
    cart.empty();
    go(`/thanks/${order.order_id}`);
  };
  return {
    title,
    content: [
      h("h1", {}, title),
      h(
        "form",
        { submit: buy, class: "checkout" },
        h("label", { for: "name" }, "Name"),
        name,
        h("label", { for: "pay" }, "Pay by"),
        pay,
        totals(),
        h("button", { class: "button" }, `Pay ${euros(cart.sums().total)}`),
        h("p", { class: "small" }, "Nothing is charged: this is a demo. Your name is not sent."),
      ),
    ],
  };
}

function thanks(id: string, go: Go): Page {
  const known = placed.get(id);
  const said = h("p", { class: "done", role: "status" });
  const refund = h("button", { class: "button light" }, "Send it back");
  refund.addEventListener("click", () => {
    if (!known || known.refunded) return;
    known.refunded = true;
    const { order_id, total, currency, products } = known.order;
    tell("orderRefunded", { order_id, refund_id: `${order_id}-1`, total, currency, products });
    refund.disabled = true;
    said.textContent = `${total} ${currency} are on their way back.`;
  });
  return {
    title: "Thank you",
    content: [
      h(
        "div",
        { class: "thanks" },
        h("h1", {}, "Thank you"),
        h("p", {}, "Your order is ", h("strong", {}, id), ". The kettle may go on."),
        known && h("p", { class: "price" }, `€${known.order.total}`),
        h("div", { class: "row" }, link("/", "On with the shop", go, { class: "button" }), known && !known.refunded && refund),
        said,
      ),
    ],
  };
}
