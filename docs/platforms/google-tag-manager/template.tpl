___TERMS_OF_SERVICE___

By creating or modifying this file you agree to Google Tag Manager's Community
Template Gallery Developer Terms of Service available at
https://developers.google.com/tag-manager/gallery-tos (or such other URL as
Google may provide), as modified from time to time.


___INFO___

{
  "type": "TAG",
  "id": "cvt_temp_public_id",
  "version": 1,
  "securityGroups": [],
  "displayName": "Shoptrail",
  "categories": ["ANALYTICS"],
  "description": "Loads Shoptrail, and tells it of events. With the GA4 adapter it hears all that the dataLayer is told.",
  "containerContexts": ["WEB"]
}


___TEMPLATE_PARAMETERS___

[
  {
    "type": "TEXT",
    "name": "gateway",
    "displayName": "Gateway, such as https://events.shop.example",
    "simpleValueType": true,
    "valueValidators": [{ "type": "REGEX", "args": ["^https://[^?#]+$"] }]
  },
  {
    "type": "TEXT",
    "name": "key",
    "displayName": "Publishable key",
    "simpleValueType": true,
    "valueValidators": [{ "type": "REGEX", "args": ["^pk_.+$"] }]
  },
  {
    "type": "SELECT",
    "name": "consent",
    "displayName": "Before the visitor agrees",
    "selectItems": [
      { "value": "required", "displayValue": "Keep and send nothing" },
      { "value": "cookieless", "displayValue": "Send, and keep nothing" },
      { "value": "", "displayValue": "Keep and send" }
    ],
    "simpleValueType": true,
    "defaultValue": "required"
  },
  {
    "type": "CHECKBOX",
    "name": "dataLayer",
    "checkboxText": "Hear what Google Analytics 4 is told in the dataLayer",
    "simpleValueType": true,
    "defaultValue": true
  },
  {
    "type": "TEXT",
    "name": "event",
    "displayName": "Event to tell of when this tag fires (optional)",
    "simpleValueType": true
  },
  {
    "type": "SIMPLE_TABLE",
    "name": "properties",
    "displayName": "The event's properties",
    "simpleTableColumns": [
      { "name": "name", "displayName": "Name", "type": "TEXT" },
      { "name": "value", "displayName": "Value", "type": "TEXT" }
    ]
  }
]


___SANDBOXED_JS_FOR_WEB_TEMPLATE___

const addConsentListener = require('addConsentListener');
const callInWindow = require('callInWindow');
const encodeUriComponent = require('encodeUriComponent');
const injectScript = require('injectScript');
const isConsentGranted = require('isConsentGranted');
const makeTableMap = require('makeTableMap');

const base = data.gateway + (data.gateway.slice(-1) === '/' ? '' : '/');
const script = base + 'shoptrail.js?key=' + encodeUriComponent(data.key) +
  (data.consent ? '&consent=' + data.consent : '');

const tell = (call) => callInWindow('shoptrail.push', call);

injectScript(script, () => {
  if (data.consent) {
    if (isConsentGranted('analytics_storage')) tell(['consent', true]);
    addConsentListener('analytics_storage', (type, granted) => tell(['consent', granted]));
  }
  if (data.event) {
    tell(['track', data.event, makeTableMap(data.properties || [], 'name', 'value') || {}]);
  }
  if (data.dataLayer) {
    injectScript(base + 'shoptrail-ga4.js', data.gtmOnSuccess, data.gtmOnFailure, 'shoptrail-ga4');
  } else {
    data.gtmOnSuccess();
  }
}, data.gtmOnFailure, 'shoptrail');


___WEB_PERMISSIONS___

[
  {
    "instance": {
      "key": { "publicId": "inject_script", "versionId": "1" },
      "param": [
        {
          "key": "urls",
          "value": { "type": 2, "listItem": [{ "type": 1, "string": "https://*/*" }] }
        }
      ]
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": { "publicId": "access_globals", "versionId": "1" },
      "param": [
        {
          "key": "keys",
          "value": {
            "type": 2,
            "listItem": [
              {
                "type": 3,
                "mapKey": [
                  { "type": 1, "string": "key" },
                  { "type": 1, "string": "read" },
                  { "type": 1, "string": "write" },
                  { "type": 1, "string": "execute" }
                ],
                "mapValue": [
                  { "type": 1, "string": "shoptrail.push" },
                  { "type": 8, "boolean": true },
                  { "type": 8, "boolean": false },
                  { "type": 8, "boolean": true }
                ]
              }
            ]
          }
        }
      ]
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": { "publicId": "access_consent", "versionId": "1" },
      "param": [
        {
          "key": "consentTypes",
          "value": {
            "type": 2,
            "listItem": [
              {
                "type": 3,
                "mapKey": [
                  { "type": 1, "string": "consentType" },
                  { "type": 1, "string": "read" },
                  { "type": 1, "string": "write" }
                ],
                "mapValue": [
                  { "type": 1, "string": "analytics_storage" },
                  { "type": 8, "boolean": true },
                  { "type": 8, "boolean": false }
                ]
              }
            ]
          }
        }
      ]
    },
    "isRequired": true
  }
]


___TESTS___

scenarios: []


___NOTES___

The script tells of each page by itself, so this tag needs to fire once a page.
