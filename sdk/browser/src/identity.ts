/**
 * This browser's key: Ed25519 by WebCrypto, kept in IndexedDB, and never readable, not even by the page.
 *
 * It lives as long as the browser's data of this origin. Whoever clears them is another peer and needs an invitation.
 */

import { publicKeyFromRaw } from "@libp2p/crypto/keys";
import type { Ed25519PrivateKey, Ed25519PublicKey } from "@libp2p/interface";

const DATABASE = "quorate-light";
const STORE = "keys";

/** What went wrong, in words for the page's user. */
export class Unusable extends Error {}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function opened(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return await settled(request);
}

async function keyPair(): Promise<CryptoKeyPair> {
  const database = await opened();
  try {
    const kept = await settled(database.transaction(STORE).objectStore(STORE).get("identity"));
    if (kept !== undefined) return kept as CryptoKeyPair;
    const made = (await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
    const store = database.transaction(STORE, "readwrite").objectStore(STORE);
    try {
      await settled(store.add(made, "identity"));
      return made;
    } catch {
      // another tab was quicker: its key is the one
      return (await settled(database.transaction(STORE).objectStore(STORE).get("identity"))) as CryptoKeyPair;
    }
  } finally {
    database.close();
  }
}

/** The key of this browser, made on first use. Throws Unusable. */
export async function loadIdentity(): Promise<Ed25519PrivateKey> {
  if (!isSecureContext) throw new Unusable("Browsers give keys to secure pages only. Open this page at 127.0.0.1 or by https.");
  try {
    const pair = await keyPair();
    const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
    return new KeptKey(pair.privateKey, publicKeyFromRaw(raw) as Ed25519PublicKey);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Unusable(`This browser cannot keep an Ed25519 key (${why}). Use a newer one, and no private window.`);
  }
}

/** A private key that only signs. */
class KeptKey implements Ed25519PrivateKey {
  readonly type = "Ed25519";

  constructor(
    private readonly key: CryptoKey,
    readonly publicKey: Ed25519PublicKey,
  ) {}

  get raw(): Uint8Array<ArrayBuffer> {
    throw new Error("the key cannot be read");
  }

  equals(other?: unknown): boolean {
    return other instanceof KeptKey && this.publicKey.equals(other.publicKey);
  }

  async sign(data: Uint8Array | { subarray(): Uint8Array }): Promise<Uint8Array<ArrayBuffer>> {
    const message = data instanceof Uint8Array ? data : data.subarray();
    return new Uint8Array(await crypto.subtle.sign("Ed25519", this.key, message as Uint8Array<ArrayBuffer>));
  }
}
