// What eslint looks for in our JavaScript: faults, not taste. tsc knows names and types (web/tsconfig.json);
// docs/adr/0026-javascript-tools.md says why these rules. Run from the root of the checkout: make javascript
import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default [
  { ignores: ["web/muster/types/", "web/app/vendor/", "web/app/packed/", "**/node_modules/", "build/"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  js.configs.recommended,
  {
    rules: {
      "no-undef": "off", // tsc finds them in the library, and Node or the page in tests
      "no-control-regex": "off", // names from elsewhere are searched for control characters
      "array-callback-return": "error",
      "default-case-last": "error",
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-constructor-return": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-self-compare": "error",
      "no-template-curly-in-string": "error",
      "no-unmodified-loop-condition": "error",
      "no-unreachable-loop": "error",
      "no-unused-vars": ["error", { ignoreRestSiblings: true }],
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["web/muster/**/*.js"],
    plugins: { ts: tseslint.plugin },
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: "web/tsconfig.json", tsconfigRootDir: process.cwd() },
    },
    rules: {
      "ts/await-thenable": "error",
      "ts/no-floating-promises": "error",
      "ts/no-misused-promises": "error",
    },
  },
];
