"""What a shop's back end does: sends events with Segment's own SDK, unmodified.

python send_with_sdk.py GATEWAY_URL WRITE_KEY
"""

import sys

from segment.analytics import Client

PRODUCTS = [
    {"product_id": "p-1", "name": "Teapot", "price": 39.9, "quantity": 1},
    {"product_id": "p-2", "name": "Cup", "price": 7.25, "quantity": 4},
]
ORDER = {"order_id": "o-1", "total": 68.9, "currency": "EUR", "products": PRODUCTS}

client = Client(sys.argv[2], host=sys.argv[1])
client.identify("ada", {"email": "ada@shop.example", "plan": "gold"})
client.page("ada", "Shop", "Home", {"url": "https://shop.example/"})
for number in range(199):
    client.track("ada", "Product Viewed", {"product_id": f"p-{number}"})
client.track("ada", "Order Completed", ORDER)
client.shutdown()
