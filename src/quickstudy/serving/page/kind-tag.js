// Kind tag: an example has any number of tags, also none.
export const kind = {
  button: "Any number of tags each",
  word: "Tags, with commas between; none is an answer too",
  hint: "such as: billing, delivery",
  optional: true,
  field: "labels",
  right: "Not right? Say its tags, with commas between",
  curve: "F1 as it learns",
  unknown: false, // a query may have no tag
  nothing: "Nothing yet. It takes a tag that some examples have and others have not.",
  wait: "Once there is a tag that some examples have and others have not, the answer comes here.",
  missing: "teach first: a tag that some examples have and others have not",
  read: (text) => [...new Set(text.split(",").map((name) => name.trim()).filter(Boolean))].sort(),
  names: (target) => (target.length ? target : ["no tag"]),
  shown: (target) => target.join(", ") || "no tag",
  enough: (targets) => [...new Set(targets.flat())].some((name) => targets.some((target) => !target.includes(name))),
  verdict: (answer) => ({
    text: answer.labels.join(", ") || "No tag",
    more: `${Math.round(100 * answer.probability)}% sure of the tag that is least sure`,
  }),
};
