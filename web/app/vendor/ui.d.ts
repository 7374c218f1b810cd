export { h, render, Fragment, createRef } from "preact";
export { useEffect, useLayoutEffect, useRef, useState, useMemo, useCallback } from "preact/hooks";
export { signal, computed, effect, batch, untracked, useSignal, useComputed, useSignalEffect } from "@preact/signals";
export const html: (strings: TemplateStringsArray, ...values: any[]) => import("preact").VNode<any>;
