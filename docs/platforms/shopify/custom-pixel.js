/**
 * Shoptrail as a custom pixel of Shopify: Settings › Customer events › Add custom pixel.
 *
 * Paste this file, fill in the two lines below, ask for the permissions that your shop needs,
 * save and connect. Pixels run in a sandbox without an origin, so the key must be one
 * without allowed origins. Refunds, and confirmed orders, come from your server.
 */
const KEY = "pk_live_…";
const GATEWAY = "https://events.shop.example";

const QUEUE = "shoptrail_queue";
const MOST_KEPT = 500;

const EVENTS = {
  search_submitted: ({ searchResult }) => ["Products Searched", { query: searchResult.query }],
  collection_viewed: ({ collection }) => [
    "Product List Viewed",
    {
      list_id: collection.id,
      category: collection.title,
      products: (collection.productVariants || []).map(ofVariant),
    },
  ],
  product_viewed: ({ productVariant }) => ["Product Viewed", ofVariant(productVariant)],
  product_added_to_cart: ({ cartLine }) => ["Product Added", ofLine(cartLine)],
  product_removed_from_cart: ({ cartLine }) => ["Product Removed", ofLine(cartLine)],
  cart_viewed: ({ cart }) => [
    "Cart Viewed",
    { cart_id: cart && cart.id, products: ((cart && cart.lines) || []).map(ofLine) },
  ],
  checkout_started: ({ checkout }) => ["Checkout Started", ofCheckout(checkout)],
  checkout_shipping_info_submitted: ({ checkout }) => [
    "Checkout Step Completed",
    { checkout_id: checkout.token, step: "shipping" },
  ],
  payment_info_submitted: ({ checkout }) => [
    "Payment Info Entered",
    { checkout_id: checkout.token, step: "payment" },
  ],
  checkout_completed: ({ checkout }) => ["Order Completed", ofCheckout(checkout)],
};

function ofVariant(variant) {
  if (!variant) return {};
  const { product = {}, price = {} } = variant;
  return said({
    product_id: product.id,
    sku: variant.sku,
    name: product.title,
    variant: variant.title,
    brand: product.vendor,
    category: product.type,
    price: price.amount,
    currency: price.currencyCode,
  });
}

function ofLine(line) {
  return line ? { ...ofVariant(line.merchandise), quantity: line.quantity } : {};
}

function ofCheckout(checkout) {
  const amountOf = (money) => money && money.amount;
  return said({
    checkout_id: checkout.token,
    order_id: checkout.order && checkout.order.id,
    subtotal: amountOf(checkout.subtotalPrice),
    total: amountOf(checkout.totalPrice),
    tax: amountOf(checkout.totalTax),
    shipping: amountOf(checkout.shippingLine && checkout.shippingLine.price),
    currency: checkout.currencyCode,
    products: (checkout.lineItems || []).map((line) => ({
      ...ofVariant(line.variant),
      quantity: line.quantity,
    })),
  });
}

function said(properties) {
  return Object.fromEntries(
    Object.entries(properties).filter(([, value]) => value !== undefined && value !== null),
  );
}

function asEvent(event, type, fields) {
  const { document = {}, navigator = {} } = event.context || {};
  const { href = "", pathname, search } = document.location || {};
  return {
    type,
    ...fields,
    // The same if Shopify tells it twice.
    messageId: `shopify-${event.id}`,
    anonymousId: event.clientId,
    originalTimestamp: event.timestamp,
    context: {
      page: { url: href, path: pathname, search, title: document.title, referrer: document.referrer },
      locale: navigator.language,
      library: { name: "shoptrail-shopify", version: "0.1.0" },
    },
  };
}

// One after another, since what is kept is read and written as a whole.
let working = Promise.resolve();

function keep(event) {
  working = working.then(async () => {
    const kept = await load();
    kept.push(event);
    await save(kept.slice(-MOST_KEPT));
    await send();
  });
  return working;
}

async function load() {
  try {
    return JSON.parse((await browser.localStorage.getItem(QUEUE)) || "[]");
  } catch {
    return [];
  }
}

async function save(events) {
  try {
    await browser.localStorage.setItem(QUEUE, JSON.stringify(events));
  } catch {
    // Then only what can be sent at once arrives.
  }
}

let resumes = 0;

async function send() {
  if (Date.now() < resumes) return;
  const batch = (await load()).slice(0, 50);
  if (!batch.length) return;
  try {
    const answer = await fetch(`${GATEWAY}/v1/batch`, {
      method: "POST",
      body: JSON.stringify({ writeKey: KEY, sentAt: new Date().toISOString(), batch }),
      keepalive: true,
    });
    if (answer.status === 200 && (await answer.json()).success) {
      const sent = new Set(batch.map((event) => event.messageId));
      await save((await load()).filter((event) => !sent.has(event.messageId)));
      return;
    }
    resumes = Date.now() + 1000 * (Number(answer.headers.get("Retry-After")) || 5);
  } catch {
    resumes = Date.now() + 5000;
  }
  // It is all kept, and goes with the next event.
}

analytics.subscribe("page_viewed", (event) => keep(asEvent(event, "page", { properties: {} })));
for (const [name, translate] of Object.entries(EVENTS)) {
  analytics.subscribe(name, (event) => {
    const [title, properties] = translate(event.data);
    return keep(asEvent(event, "track", { event: title, properties }));
  });
}
