"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page").textContent);
  const element = (id) => document.getElementById(id);
  const storageKey = `lmdissect-sheet:${page.sheet}:${page.form}`;
  const unprintable = /[^\P{Cc}\n\t]|\p{Cs}|[\u202a-\u202e\u2066-\u2069]/gu; // controls and bidirectional overrides must not rearrange the page

  let state = { rater: page.form, shortcuts: true, diff: false, position: 0, answers: {} };
  let storageWorks = true;
  let begun = false; // whether there is anything to keep: an untouched page never writes over what may be there
  let unsaved = false; // answers that are neither in the browser's storage nor in a file
  let current = 0; // question that the number keys answer
  let shownAt = null; // when the pair in view came into view, by the monotonic clock, or null

  // --- what is kept ---

  function readStorage() {
    try {
      return JSON.parse(localStorage.getItem(storageKey));
    } catch {
      return null;
    }
  }

  function keep() {
    begun = true;
    try {
      localStorage.setItem(storageKey, JSON.stringify(state));
      storageWorks = localStorage.getItem(storageKey) !== null;
    } catch {
      storageWorks = false;
    }
    element("storage-warning").hidden = storageWorks;
  }

  // Whether the browser keeps anything at all, asked without touching the answers.
  function tryStorage() {
    try {
      localStorage.setItem(`${storageKey}-try`, "1");
      localStorage.removeItem(`${storageKey}-try`);
    } catch {
      storageWorks = false;
    }
    element("storage-warning").hidden = storageWorks;
  }

  function isRecord(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
  }

  // Answers in `found` to questions that this sheet asks; everything else is dropped.
  function knownAnswers(found) {
    const known = {};
    for (const pair of page.pairs) {
      const entry = isRecord(found) ? found[pair.key] : null;
      if (!isRecord(entry)) continue;
      const answers = {};
      for (const name of page.tasks[pair.variant].criteria) {
        if (isRecord(entry.answers) && page.criteria[name].answers.includes(entry.answers[name])) answers[name] = entry.answers[name];
      }
      known[pair.key] = {
        answers,
        comment: typeof entry.comment === "string" ? entry.comment : "",
        seconds: Number.isFinite(entry.seconds) && entry.seconds >= 0 ? entry.seconds : 0,
        answered_at: typeof entry.answered_at === "string" ? entry.answered_at : "",
      };
    }
    return known;
  }

  // Of a pair that both hold, the entry that was changed last wins.
  function mergeAnswers(found) {
    let taken = 0;
    for (const [key, entry] of Object.entries(knownAnswers(found))) {
      const mine = state.answers[key];
      if (!mine || mine.answered_at < entry.answered_at) {
        state.answers[key] = entry;
        taken += 1;
      }
    }
    return taken;
  }

  // --- what is shown ---

  const entryOf = (pair) => (state.answers[pair.key] ??= { answers: {}, comment: "", seconds: 0, answered_at: "" });
  const questionsOf = (pair) => page.tasks[pair.variant].criteria;
  const isComplete = (pair) => questionsOf(pair).every((name) => state.answers[pair.key]?.answers[name] !== undefined);

  function say(text) {
    element("status").textContent = text;
  }

  function showProgress() {
    const done = page.pairs.filter(isComplete).length;
    element("progress").max = page.pairs.length;
    element("progress").value = done;
    element("progress-text").textContent = `${done} of ${page.pairs.length} pairs answered`;
  }

  function showText(target, segments, tag) {
    target.replaceChildren(
      ...segments.map(([text, changed]) => {
        const shown = text.replace(/\r\n?/g, "\n").replace(unprintable, "\ufffd");
        if (!(changed && state.diff)) return document.createTextNode(shown);
        const mark = document.createElement(tag);
        mark.textContent = shown;
        return mark;
      }),
    );
  }

  function showTexts() {
    const pair = page.pairs[state.position];
    showText(element("original"), pair.original, "del");
    showText(element("text"), pair.text, "ins");
    element("diff").setAttribute("aria-pressed", String(state.diff));
  }

  function makeQuestion(pair, name, number) {
    const { question, answers } = page.criteria[name];
    const fieldset = document.createElement("fieldset");
    fieldset.dataset.criterion = name;
    const legend = document.createElement("legend");
    legend.textContent = question;
    const row = document.createElement("div");
    row.className = "answers";
    answers.forEach((answer, index) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "radio";
      input.name = name;
      input.value = answer;
      input.checked = entryOf(pair).answers[name] === answer;
      input.addEventListener("change", () => record(name, answer));
      const key = document.createElement("kbd");
      key.textContent = String(index + 1);
      key.setAttribute("aria-hidden", "true");
      label.append(input, answer, key);
      row.append(label);
    });
    fieldset.append(legend, row);
    fieldset.addEventListener("focusin", () => markQuestion(number));
    return fieldset;
  }

  function markQuestion(number) {
    current = number;
    [...element("criteria").children].forEach((fieldset, index) => fieldset.classList.toggle("current", index === number));
  }

  function showPair(position, { focus = true } = {}) {
    addTime();
    state.position = Math.min(Math.max(position, 0), page.pairs.length - 1);
    const pair = page.pairs[state.position];
    const task = page.tasks[pair.variant];
    element("start").hidden = true;
    element("pair").hidden = element("help").hidden = false;
    element("pair-title").textContent = `Pair ${state.position + 1} of ${page.pairs.length}: ${pair.variant}`;
    element("asked").textContent = task.instruction || `The writer was asked to change this about the original: ${task.factor}.`;
    element("kept-title").hidden = element("kept").hidden = task.keeps.length === 0;
    element("kept").replaceChildren(
      ...task.keeps.map((kept) => {
        const line = document.createElement("li");
        line.textContent = kept;
        return line;
      }),
    );
    showTexts();
    element("criteria").replaceChildren(...questionsOf(pair).map((name, number) => makeQuestion(pair, name, number)));
    const open = questionsOf(pair).findIndex((name) => entryOf(pair).answers[name] === undefined);
    markQuestion(Math.max(open, 0));
    element("comment").value = entryOf(pair).comment;
    element("previous").disabled = state.position === 0;
    element("next").disabled = state.position === page.pairs.length - 1;
    showProgress();
    shownAt = document.visibilityState === "visible" ? performance.now() : null;
    keep();
    if (focus) {
      element("pair-title").focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }

  function showStart() {
    addTime();
    element("pair").hidden = element("help").hidden = true;
    element("start").hidden = false;
    element("rater").value = state.rater;
    element("shortcuts").checked = state.shortcuts;
    element("num-pairs").textContent = String(page.pairs.length);
    element("begin").textContent = Object.values(state.answers).some((entry) => Object.keys(entry.answers).length) ? "Go on" : "Begin";
    showProgress();
  }

  // --- what a rater does ---

  function addTime() {
    if (shownAt === null) return;
    entryOf(page.pairs[state.position]).seconds += (performance.now() - shownAt) / 1000;
    shownAt = null;
  }

  function touch(pair) {
    addTime();
    shownAt = performance.now();
    entryOf(pair).answered_at = new Date().toISOString();
    unsaved = true;
    keep();
  }

  function record(name, answer) {
    const pair = page.pairs[state.position];
    entryOf(pair).answers[name] = answer;
    touch(pair);
    showProgress();
    say(page.pairs.every(isComplete) ? "All pairs are answered. Save your answers to a file and send it back." : "");
  }

  function answerByKey(index) {
    const fieldset = element("criteria").children[current];
    const input = fieldset?.querySelectorAll("input")[index];
    if (!input) return;
    input.checked = true;
    record(fieldset.dataset.criterion, input.value);
    const following = element("criteria").children[current + 1];
    if (following) {
      (following.querySelector("input:checked") ?? following.querySelector("input")).focus();
    } else {
      (element("next").disabled ? element("save") : element("next")).focus();
    }
  }

  function nextOpen() {
    const count = page.pairs.length;
    for (let step = 1; step <= count; step += 1) {
      const position = (state.position + step) % count;
      if (!isComplete(page.pairs[position])) return showPair(position);
    }
    say("No pair has open questions. Save your answers to a file and send it back.");
  }

  function toggleDiff() {
    state.diff = !state.diff;
    showTexts();
    keep();
    say(state.diff ? "Words that differ are marked." : "Words that differ are not marked.");
  }

  function takeName() {
    const name = element("rater").value.replace(unprintable, "").trim();
    element("rater-error").textContent = name ? "" : "Please write a name or a code first.";
    element("rater").setAttribute("aria-invalid", String(!name));
    if (!name) {
      showStart();
      element("rater").value = "";
      element("rater").focus();
      return false;
    }
    state.rater = name;
    state.shortcuts = element("shortcuts").checked;
    keep();
    return true;
  }

  function begin() {
    if (!takeName()) return;
    say("");
    const open = page.pairs.findIndex((pair) => !isComplete(pair));
    showPair(isComplete(page.pairs[state.position]) && open >= 0 ? open : state.position);
  }

  function exported() {
    const answered = page.pairs.filter((pair) => {
      const entry = state.answers[pair.key];
      return entry && (Object.keys(entry.answers).length || entry.comment);
    });
    return {
      kind: "lmdissect-ratings",
      schema_version: 1,
      sheet: page.sheet,
      form: page.form,
      rater: state.rater,
      exported_at: new Date().toISOString(),
      num_pairs: page.pairs.length,
      ratings: answered.map((pair) => {
        const { answers, comment, seconds, answered_at } = state.answers[pair.key];
        return { pair: pair.key, answers, comment, seconds: Math.round(seconds * 10) / 10, answered_at };
      }),
    };
  }

  function saveFile() {
    if (!element("start").hidden && !takeName()) return;
    addTime();
    const content = exported();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(content, null, 1)}\n`], { type: "application/json" }));
    link.download = `ratings-${state.rater.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = false;
    say(`Saved as ${link.download}: ${content.ratings.length} pairs.`);
    if (!element("pair").hidden) shownAt = performance.now();
  }

  async function loadFile(file) {
    let content = null;
    try {
      content = JSON.parse(await file.text());
    } catch {
      return say("That file cannot be read: it is not a file of answers.");
    }
    if (!isRecord(content) || content.kind !== "lmdissect-ratings" || !Array.isArray(content.ratings)) return say("That file is not a file of answers.");
    if (content.sheet !== page.sheet) return say("That file holds answers to another sheet; nothing was taken from it.");
    addTime();
    const taken = mergeAnswers(Object.fromEntries(content.ratings.filter(isRecord).map((entry) => [entry.pair, entry])));
    if (typeof content.rater === "string" && content.rater.trim() && state.rater === page.form) state.rater = content.rater.trim().slice(0, 80);
    keep();
    if (element("pair").hidden) showStart();
    else showPair(state.position, { focus: false });
    say(`Loaded: answers to ${taken} pairs were newer than those here and were taken.`);
  }

  // --- events ---

  element("begin").addEventListener("click", begin);
  element("help").addEventListener("click", () => {
    showStart();
    element("start-title").focus();
  });
  element("previous").addEventListener("click", () => showPair(state.position - 1));
  element("next").addEventListener("click", () => showPair(state.position + 1));
  element("unanswered").addEventListener("click", nextOpen);
  element("diff").addEventListener("click", toggleDiff);
  element("save").addEventListener("click", saveFile);
  element("load").addEventListener("change", async (event) => {
    if (event.target.files.length) await loadFile(event.target.files[0]);
    event.target.value = "";
  });
  element("comment").addEventListener("input", (event) => {
    const pair = page.pairs[state.position];
    entryOf(pair).comment = event.target.value;
    touch(pair);
  });
  element("rater").addEventListener("keydown", (event) => {
    if (event.key === "Enter") begin();
  });
  element("shortcuts").addEventListener("change", () => {
    state.shortcuts = element("shortcuts").checked;
    keep();
  });
  element("questions").addEventListener("submit", (event) => event.preventDefault());

  const shortcuts = {
    n: () => state.position < page.pairs.length - 1 && showPair(state.position + 1),
    p: () => state.position > 0 && showPair(state.position - 1),
    u: nextOpen,
    d: toggleDiff,
    c: () => element("comment").focus(),
    1: () => answerByKey(0),
    2: () => answerByKey(1),
    3: () => answerByKey(2),
  };

  document.addEventListener("keydown", (event) => {
    if (element("pair").hidden || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target === element("comment")) {
      if (event.key === "Escape") element("criteria").children[current]?.querySelector("input").focus();
      return;
    }
    const action = state.shortcuts && Object.hasOwn(shortcuts, event.key) ? shortcuts[event.key] : null;
    if (action) {
      event.preventDefault();
      action();
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (element("pair").hidden) return;
    if (document.visibilityState === "hidden") {
      addTime();
      keep();
    } else {
      shownAt = performance.now();
    }
  });

  window.addEventListener("storage", (event) => {
    // the same sheet in another tab: take what was answered there, so that neither writes over the other
    if (event.key !== storageKey || event.newValue === null) return;
    if (mergeAnswers(readStorage()?.answers) && !element("pair").hidden) showPair(state.position, { focus: false });
  });

  window.addEventListener("beforeunload", (event) => {
    if (begun) {
      addTime();
      keep();
    }
    if (!storageWorks && unsaved) event.preventDefault();
  });

  const kept = readStorage();
  if (isRecord(kept)) {
    state = {
      rater: typeof kept.rater === "string" ? kept.rater : page.form,
      shortcuts: kept.shortcuts !== false,
      diff: kept.diff === true,
      position: Number.isInteger(kept.position) ? Math.min(Math.max(kept.position, 0), page.pairs.length - 1) : 0,
      answers: knownAnswers(kept.answers),
    };
    keep();
  } else {
    tryStorage();
  }
  showStart();
})();
