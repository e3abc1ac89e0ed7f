/** The form of a protection: what was typed, as texts, and what it means. Pure; tested in protect-form.test.ts. */
import type { Keep, Protect } from "../../../api/deployments.ts";

/** What was typed. Nothing in `every` means no protection. */
export interface ProtectForm {
  every: string;
  last: string;
  hourly: string;
  daily: string;
  weekly: string;
}
export type ProtectField = keyof ProtectForm;

export const emptyProtect: ProtectForm = { every: "", last: "", hourly: "", daily: "", weekly: "" };

const rules = ["last", "hourly", "daily", "weekly"] as const;
/** What the API takes where nothing is said. */
const defaults: Keep = { last: 1, hourly: 0, daily: 0, weekly: 0 };

/** What a form asks for: rules that are left empty are not named. */
export interface MeantProtect {
  protect: { every: string; keep?: Partial<Keep> } | undefined;
  unread: Partial<Record<ProtectField, string>>;
}

export function protectMeantBy(form: ProtectForm): MeantProtect {
  const unread: MeantProtect["unread"] = {};
  const keep: Partial<Keep> = {};
  for (const rule of rules) {
    const text = form[rule].trim();
    if (text === "") continue;
    if (/^\d{1,9}$/.test(text)) keep[rule] = Number(text);
    else unread[rule] = "Write a whole number.";
  }
  const every = form.every.replaceAll(/\s/g, "");
  const rulesSaid = rules.some((rule) => form[rule].trim() !== "");
  if (every === "") {
    if (rulesSaid) unread.every = "Say how often, such as 15m.";
    return { protect: undefined, unread };
  }
  if (!/^\d+(ms|s|m|min|h|d)$/.test(every)) unread.every = "Write a time such as 15m, 2h or 1d.";
  return { protect: { every, ...(Object.keys(keep).length === 0 ? {} : { keep }) }, unread };
}

/** The protection of a deployment, where the API says a known one. */
export function protectOf(deployment: { protect?: unknown }): Protect | undefined {
  const { protect } = deployment;
  return typeof protect === "object" && protect !== null && "every" in protect ? (protect as Protect) : undefined;
}

/** The form that says a protection: what equals a default is left empty. */
export function protectForm(protect: Protect | undefined): ProtectForm {
  if (protect === undefined) return emptyProtect;
  const keep = { ...defaults, ...protect.keep };
  const text = (rule: keyof Keep) => (keep[rule] === defaults[rule] ? "" : String(keep[rule]));
  return {
    every: protect.every,
    last: text("last"),
    hourly: text("hourly"),
    daily: text("daily"),
    weekly: text("weekly"),
  };
}

/** What a form changes in a protection, as a merge patch: what others changed meanwhile stays. */
export function protectPatch(form: ProtectForm, before: Protect | undefined): Record<string, unknown> {
  const { protect } = protectMeantBy(form);
  if (protect === undefined) return {};
  const keep: Partial<Record<keyof Keep, number | null>> = {};
  for (const rule of rules) {
    const wanted = protect.keep?.[rule];
    if ((wanted ?? defaults[rule]) !== (before?.keep?.[rule] ?? defaults[rule])) keep[rule] = wanted ?? null;
  }
  return {
    ...(protect.every === before?.every ? {} : { every: protect.every }),
    ...(Object.keys(keep).length === 0 ? {} : { keep }),
  };
}

/** Which field an error of the API is about. `at` is where the protection is in the body. */
export function protectFieldOf(pointer: string): ProtectField | undefined {
  const rule = rules.find((each) => pointer === `/protect/keep/${each}`);
  if (rule !== undefined) return rule;
  if (pointer === "/protect/keep") return "last";
  return pointer === "/protect" || pointer === "/protect/every" ? "every" : undefined;
}

/** `the newest 3, one of each of 24 hours, one of each of 7 days`. */
export function keepText({ last, hourly, daily, weekly }: Keep = defaults): string {
  const of = (number: number, one: string, many: string) =>
    number === 0 ? [] : [number === 1 ? `the newest of the last ${one}` : `one of each of ${number} ${many}`];
  const newest = last === 1 ? "the newest" : `the newest ${last}`;
  return [newest, ...of(hourly, "hour", "hours"), ...of(daily, "day", "days"), ...of(weekly, "week", "weeks")].join(
    ", ",
  );
}
