<?php
/**
 * Plugin Name: Shoptrail for WooCommerce
 * Description: Tells Shoptrail what happens in the shop: pages and carts from the browser, orders and refunds from the server.
 * Version: 0.1.0
 * License: Apache-2.0
 * Requires PHP: 8.1
 *
 * Put this file into wp-content/plugins, and these lines into wp-config.php:
 *
 *     define('SHOPTRAIL_URL', 'https://events.shop.example');
 *     define('SHOPTRAIL_KEY', 'pk_live_…');          // stands in the pages
 *     define('SHOPTRAIL_SECRET_KEY', 'sk_live_…');   // stays on the server
 *     define('SHOPTRAIL_CONSENT', 'required');       // or 'cookieless', or ''
 */

defined('ABSPATH') || exit;

const SHOPTRAIL_VISITOR = '_shoptrail_visitor';

add_action('wp_head', function (): void {
    printf(
        '<script async src="%s/shoptrail.js" data-key="%s" data-consent="%s"></script>' . "\n",
        esc_url(SHOPTRAIL_URL),
        esc_attr(SHOPTRAIL_KEY),
        esc_attr(SHOPTRAIL_CONSENT)
    );
});

/** The script hears what these elements say as soon as it is there. */
function shoptrail_say(string $event, array $properties): void
{
    printf(
        '<span hidden data-shoptrail-event="%s" data-shoptrail-on="load" data-shoptrail-properties="%s"></span>',
        esc_attr($event),
        esc_attr(wp_json_encode($properties))
    );
}

function shoptrail_product(WC_Product $product, int|float|null $quantity = null): array
{
    return array_filter([
        'product_id' => (string) $product->get_id(),
        'sku' => $product->get_sku(),
        'name' => $product->get_name(),
        'price' => (string) $product->get_price(),
        'quantity' => $quantity,
    ], fn ($value) => $value !== null && $value !== '');
}

add_action('woocommerce_after_single_product', function (): void {
    global $product;
    if ($product instanceof WC_Product) {
        shoptrail_say('Product Viewed', shoptrail_product($product) + ['currency' => get_woocommerce_currency()]);
    }
});

function shoptrail_cart_products(): array
{
    return array_values(array_map(
        fn (array $item) => shoptrail_product($item['data'], $item['quantity']),
        WC()->cart->get_cart()
    ));
}

add_action('woocommerce_after_cart', function (): void {
    shoptrail_say('Cart Viewed', ['products' => shoptrail_cart_products()]);
});

add_action('woocommerce_after_checkout_form', function (): void {
    shoptrail_say('Checkout Started', [
        'value' => (string) WC()->cart->get_total('edit'),
        'currency' => get_woocommerce_currency(),
        'products' => shoptrail_cart_products(),
    ]);
});

// Added by a form or by a script, the server hears of both.
add_action('woocommerce_add_to_cart', function ($key, $product_id, $quantity, $variation_id): void {
    $product = wc_get_product($variation_id ?: $product_id);
    if ($product && isset($_COOKIE['shoptrail_id'])) {
        shoptrail_tell('Product Added', 'added-' . wp_generate_uuid4(), shoptrail_product($product, $quantity));
    }
}, 10, 4);

/** So that the order belongs to the visit from which it came. */
add_action('woocommerce_checkout_create_order', function (WC_Order $order): void {
    if (isset($_COOKIE['shoptrail_id'])) {
        $order->update_meta_data(SHOPTRAIL_VISITOR, sanitize_key($_COOKIE['shoptrail_id']));
    }
});

foreach (['processing', 'completed'] as $status) {
    add_action("woocommerce_order_status_{$status}", function (int $id): void {
        $order = wc_get_order($id);
        $products = [];
        foreach ($order->get_items() as $item) {
            $product = $item->get_product();
            if ($product) {
                $paid = $order->get_item_total($item, true);
                $products[] = ['price' => wc_format_decimal($paid, 2)] + shoptrail_product($product, $item->get_quantity());
            }
        }
        // Told on both statuses, it counts once.
        shoptrail_tell('Order Completed', "order-completed-{$id}", [
            'order_id' => (string) $id,
            'total' => (string) $order->get_total(),
            'tax' => (string) $order->get_total_tax(),
            'shipping' => (string) $order->get_shipping_total(),
            'discount' => (string) $order->get_discount_total(),
            'currency' => $order->get_currency(),
            'products' => $products,
        ], $order);
    });
}

add_action('woocommerce_order_refunded', function (int $id, int $refund_id): void {
    $order = wc_get_order($id);
    $refund = wc_get_order($refund_id);
    shoptrail_tell('Order Refunded', "order-refunded-{$refund_id}-{$id}", [
        'order_id' => (string) $id,
        'refund_id' => (string) $refund_id,
        'total' => (string) $refund->get_amount(),
        'currency' => $order->get_currency(),
    ], $order);
}, 10, 2);

add_action('woocommerce_order_status_cancelled', function (int $id): void {
    shoptrail_tell('Order Cancelled', "order-cancelled-{$id}", ['order_id' => (string) $id], wc_get_order($id));
});

/** Tells with the secret key; what fails is tried again by WooCommerce's own scheduler. */
function shoptrail_tell(string $event, string $message_id, array $properties, ?WC_Order $order = null): void
{
    $visitor = $order?->get_meta(SHOPTRAIL_VISITOR) ?: ($_COOKIE['shoptrail_id'] ?? '');
    $customer = $order ? $order->get_customer_id() : get_current_user_id();
    $body = array_filter([
        'event' => $event,
        'messageId' => $message_id,
        'anonymousId' => sanitize_key($visitor) ?: ($customer ? '' : $message_id),
        'userId' => $customer ? (string) $customer : '',
        'timestamp' => gmdate('c'),
        'properties' => $properties,
    ]);
    as_enqueue_async_action('shoptrail_send', [wp_json_encode($body), 1], 'shoptrail');
}

add_action('shoptrail_send', function (string $body, int $try): void {
    $answer = wp_remote_post(SHOPTRAIL_URL . '/v1/track', [
        'headers' => [
            'Authorization' => 'Basic ' . base64_encode(SHOPTRAIL_SECRET_KEY . ':'),
            'Content-Type' => 'application/json',
        ],
        'body' => $body,
        'timeout' => 10,
    ]);
    $status = wp_remote_retrieve_response_code($answer);
    if ($status === 200 || $try >= 20 || in_array($status, [400, 401, 403, 413], true)) {
        return;
    }
    $wait = (int) wp_remote_retrieve_header($answer, 'retry-after') ?: min(3600, 2 ** $try * 5);
    as_schedule_single_action(time() + $wait, 'shoptrail_send', [$body, $try + 1], 'shoptrail');
}, 10, 2);
