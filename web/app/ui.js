/**
 * What views are made of: preact, htm and signals, in one place.
 * @module
 */
export {
  h, render, Fragment, createRef, html,
  useEffect, useLayoutEffect, useRef, useState, useMemo, useCallback,
  signal, computed, effect, batch, untracked, useSignal, useComputed, useSignalEffect,
} from "./vendor/ui.js";
