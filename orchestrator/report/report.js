const all = (open) => document.querySelectorAll("details.query, details.method").forEach((one) => { one.open = open; });
document.querySelectorAll("[data-open]").forEach((button) => button.addEventListener("click", () => all(button.dataset.open === "all")));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
const target = () => { const one = location.hash && document.getElementById(location.hash.slice(1)); if (one && one.tagName === "DETAILS") one.open = true; };
addEventListener("hashchange", target);
target();
