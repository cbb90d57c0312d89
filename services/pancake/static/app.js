const $ = (id) => document.getElementById(id);
const form = $("form"), list = $("pancakes"), send = $("send"), older = $("older");
const FIELDS = ["name", "fluffiness_level", "syrup_type", "is_buttery", "magical_factor", "taste_notes"];
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
let next = null;

/** Ask the service; an error has a message for people and, where fields were refused, which and why. */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("The service cannot be reached. Check the connection and try again."), { fields: {} });
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return { body, link: answer.headers.get("Link") };
  const fields = {};
  for (const { where, what } of body.errors ?? []) fields[where.split(".")[1]] ??= sentence(what);
  const wait = answer.headers.get("Retry-After");
  const detail = body.detail ?? `The service answered ${answer.status}.`;
  throw Object.assign(new Error(`${sentence(detail)}${wait ? ` Try again in ${wait} s.` : ""}`), { fields });
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[^.]$/, "$&.");

/** What the browser finds wrong with a field, in few words; "" when nothing is. */
function fault(field) {
  const { valid, valueMissing, badInput, stepMismatch } = field.validity;
  if (valid) return "";
  if (valueMissing) return "Fill this in.";
  if (badInput) return "A number, please.";
  if (stepMismatch) return "At most two decimals.";
  return field.min ? `From ${field.min} to ${field.max}.` : field.validationMessage;
}

function card(pancake) {
  const made = $("card").content.cloneNode(true), find = (what) => made.querySelector(what);
  find("h3").textContent = pancake.name;
  const meter = find(".meter");
  meter.setAttribute("aria-label", `Fluffiness ${pancake.fluffiness_level} of 10`);
  find(".bar").style.setProperty("--part", `${pancake.fluffiness_level * 10}%`);
  find(".of").textContent = `${pancake.fluffiness_level}/10`;
  find(".syrup").textContent = pancake.syrup_type;
  if (!pancake.is_buttery) find(".buttery").remove();
  if (pancake.magical_factor) find(".magic").textContent = `magic ${pancake.magical_factor}`;
  else find(".magic").remove();
  if (pancake.taste_notes) find(".notes").textContent = pancake.taste_notes;
  else find(".notes").remove();
  const time = find("time");
  time.dateTime = pancake.created_at;
  time.textContent = moment.format(new Date(pancake.created_at));
  return made.firstElementChild;
}

async function load(path) {
  $("list-alert").hidden = true;
  older.disabled = true;
  list.setAttribute("aria-busy", "true");
  try {
    const { body, link } = await ask(path);
    list.append(...body.map(card));
    next = link?.match(/<([^>]+)>; *rel="next"/)?.[1] ?? null;
    older.hidden = next === null;
    $("empty").hidden = list.childElementCount > 0;
    return body.length;
  } catch (error) {
    $("list-alert").firstElementChild.textContent = error.message;
    $("list-alert").hidden = false;
    $("again").onclick = () => load(path);
    return 0;
  } finally {
    older.disabled = false;
    list.setAttribute("aria-busy", "false");
  }
}

function complain(name, message) {
  const field = $(name), note = $(`${name}-error`);
  note.textContent = message;
  note.hidden = !message;
  if (message) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** Show what is wrong beside each field, and go to the first. */
function refuse(errors) {
  for (const name of FIELDS) complain(name, errors[name] ?? "");
  const first = FIELDS.find((name) => errors[name]);
  if (first) $(first).focus();
  return Boolean(first);
}

function pancake() {
  const text = (name) => $(name).value;
  const found = {
    name: text("name"),
    fluffiness_level: $("fluffiness_level").valueAsNumber,
    syrup_type: text("syrup_type"),
    is_buttery: $("is_buttery").checked,
  };
  if (text("magical_factor") !== "") found.magical_factor = $("magical_factor").valueAsNumber;
  if (text("taste_notes").trim()) found.taste_notes = text("taste_notes");
  return found;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  $("form-alert").hidden = true;
  $("said").textContent = "";
  if (refuse(Object.fromEntries(FIELDS.map((name) => [name, fault($(name))])))) return;
  send.disabled = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const { body } = await ask("/api/pancakes", { method: "POST", headers, body: JSON.stringify(pancake()) });
    list.querySelector(".new")?.classList.remove("new");
    const made = card(body);
    made.classList.add("new");
    list.prepend(made);
    $("empty").hidden = true;
    form.reset();
    shown();
    $("said").textContent = `${body.name} is stored.`;
    $("name").focus();
  } catch (error) {
    if (!refuse(error.fields)) {
      $("form-alert").textContent = error.message;
      $("form-alert").hidden = false;
    }
  } finally {
    send.disabled = false;
  }
});

// What was refused is looked at again as soon as it changes.
form.addEventListener("input", (event) => {
  const { id } = event.target;
  if (event.target.hasAttribute("aria-invalid")) complain(id, fault(event.target));
});
$("taste_notes").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

const shown = () => { $("fluffiness-shown").textContent = `${$("fluffiness_level").value} of 10`; };
$("fluffiness_level").addEventListener("input", shown);

older.addEventListener("click", async () => {
  const at = list.childElementCount;
  // Who came by keyboard goes on where the new ones begin.
  if (await load(next)) {
    list.children[at].tabIndex = -1;
    list.children[at].focus({ preventScroll: true });
  }
});

shown();
load("/api/pancakes?limit=24");
