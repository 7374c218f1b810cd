/**
 * Texts of others as elements: links, code, bold and italic, mentions. Nothing of it is ever read as HTML.
 * @module
 */
import { html } from "../ui.js";

const MOST_PIECES = 400, MOST_BLOCKS = 12;
const PIECES = /\n?```\n?([\s\S]+?)\n?```\n?|`([^`\n]+)`|(https?:\/\/[^\s<>"'`]{3,2000})|\*\*([^*\n]+)\*\*|(?<![\p{L}\p{N}*])\*([^*\s][^*\n]*)\*(?![\p{L}\p{N}*])|(?<![\p{L}\p{N}])@([^\s@]{1,64})/gu;

/** What ends a sentence does not end a link. @param {string} url */
const trimmed = (url) => {
  let end = url.length;
  for (; end > 0; end -= 1) {
    const last = url[end - 1];
    if (/[.,;:!?'"*]/.test(last)) continue;
    if (last === ")" && !url.slice(0, end).includes("(")) continue;
    break;
  }
  return url.slice(0, end);
};

/** @param {string} url */
const isLink = (url) => {
  try {
    return /^https?:$/.test(new URL(url).protocol);
  } catch {
    return false;
  }
};

/**
 * @param {string} text
 * @param {(name: string) => boolean} isMe whether a mention is of oneself
 * @returns {any[]}
 */
export const words = (text, isMe = () => false) => {
  const found = [];
  let at = 0, blocks = 0;
  for (const match of text.matchAll(PIECES)) {
    if (found.length > MOST_PIECES) break;
    const [whole, block, code, url, bold, italic, mention] = match;
    let taken = whole.length;
    let piece;
    if (block && (blocks += 1) > MOST_BLOCKS) continue; // each is as high as a line or more
    if (block) piece = html`<pre tabindex="0"><code>${block}</code></pre>`;
    else if (code) piece = html`<code>${code}</code>`;
    else if (bold) piece = html`<strong>${bold}</strong>`;
    else if (italic) piece = html`<em>${italic}</em>`;
    else if (mention) {
      const name = mention.replace(/[.,;:!?]+$/, "");
      taken = name.length + 1;
      piece = isMe(name) ? html`<mark>@${name}</mark>` : null;
    }
    else {
      const link = trimmed(url);
      taken = link.length;
      piece = isLink(link) ? html`<a href=${link} target="_blank" rel="noopener noreferrer nofollow" dir="ltr">${link}</a>` : null;
    }
    if (!piece) continue;
    found.push(text.slice(at, match.index), piece);
    at = match.index + taken;
  }
  found.push(text.slice(at));
  return found;
};
