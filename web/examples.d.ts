// What examples find in their own pages is what they have put there.
interface ParentNode {
  querySelector(selectors: string): any;
}
interface HTMLTemplateElement {
  cloneNode(deep?: boolean): any;
}
