// Kind classify: an example is of one class.
export const kind = {
  button: "One class each",
  word: "Class",
  hint: "such as: billing",
  optional: false,
  field: "label",
  right: "Not right? Say the class, an old one or a new one",
  curve: "Accuracy as it learns",
  unknown: true, // a query may be of none of the classes
  nothing: "Nothing yet. It takes two classes, with an example each.",
  wait: "Once two classes are taught, the answer comes here.",
  missing: "teach two classes first, with an example each",
  read: (text) => text.trim(),
  names: (target) => [target],
  shown: (target) => target,
  enough: (targets) => new Set(targets).size >= 2,
  verdict: (answer) => answer.known
    ? { text: answer.label, more: `${Math.round(100 * answer.probability)}% likely` }
    : { text: "Unknown", more: `It is like none of the classes. The least bad guess is ${answer.label}.`, unknown: true },
};
