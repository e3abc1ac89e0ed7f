/** How long a new token is good for. */
export const lifetimes = [
  { value: "", label: "The usual: 90 days, 1 hour for a node" },
  { value: "3600", label: "1 hour" },
  { value: "86400", label: "1 day" },
  { value: "604800", label: "7 days" },
  { value: "2592000", label: "30 days" },
  { value: "7776000", label: "90 days" },
  { value: "31536000", label: "1 year" },
];

/** How the browser of a session is called: `Firefox on Linux`. Browsers name themselves with those they resemble. */
export function browserOf(agent: string | null): string {
  if (!agent) return "unknown";
  const browser = [
    [/Edg\//, "Edge"],
    [/OPR\//, "Opera"],
    [/Firefox\//, "Firefox"],
    [/Chrom(e|ium)\//, "Chrome"],
    [/Safari\//, "Safari"],
  ].find(([pattern]) => (pattern as RegExp).test(agent))?.[1];
  const system = [
    [/Android/, "Android"],
    [/iPhone|iPad/, "iOS"],
    [/Windows/, "Windows"],
    [/Mac OS X/, "macOS"],
    [/Linux/, "Linux"],
  ].find(([pattern]) => (pattern as RegExp).test(agent))?.[1];
  if (browser === undefined) return agent.length > 40 ? `${agent.slice(0, 39)}…` : agent;
  return system === undefined ? String(browser) : `${browser} on ${system}`;
}
