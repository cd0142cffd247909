// Prepares a container of Azurite: `container` creates it, `sas PERMISSIONS` prints a shared access signature.
// Usage: node azurite.mjs PORT CONTAINER container|sas [PERMISSIONS], with the account and its key in the environment.

import { createHmac } from "node:crypto";

const [port, container, command, permissions] = process.argv.slice(2);
const account = process.env.AZURE_STORAGE_ACCOUNT_NAME;
const key = Buffer.from(process.env.AZURE_STORAGE_ACCOUNT_KEY, "base64");
const version = "2021-12-02";
const sign = (text) => createHmac("sha256", key).update(text, "utf8").digest("base64");

if (command === "container") {
  const date = new Date().toUTCString();
  const headers = `x-ms-date:${date}\nx-ms-version:${version}`;
  // Azurite has the account in its paths, and signs it twice.
  const resource = `/${account}/${account}/${container}\nrestype:container`;
  const signature = sign(`PUT${"\n".repeat(12)}${headers}\n${resource}`);
  const response = await fetch(`http://127.0.0.1:${port}/${account}/${container}?restype=container`, {
    method: "PUT",
    headers: { "x-ms-date": date, "x-ms-version": version, Authorization: `SharedKey ${account}:${signature}` },
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
} else {
  const expiry = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, "");
  const fields = [permissions, "", expiry, `/blob/${account}/${container}`, "", "", "", version, "c"];
  const signature = sign([...fields, "", "", "", "", "", "", ""].join("\n"));
  console.log(String(new URLSearchParams({ sv: version, sr: "c", sp: permissions, se: expiry, sig: signature })));
}
