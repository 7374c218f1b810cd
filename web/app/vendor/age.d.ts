export { Decrypter, Encrypter, Stanza } from "age-encryption";
type Cost = { N: number; r: number; p: number; dkLen: number; maxmem?: number; asyncTick?: number; onProgress?: (part: number) => void };
export const scryptAsync: (passphrase: string, salt: Uint8Array, cost: Cost) => Promise<Uint8Array>;
export const chacha20poly1305: (key: Uint8Array, nonce: Uint8Array) => { encrypt(text: Uint8Array): Uint8Array; decrypt(text: Uint8Array): Uint8Array };
