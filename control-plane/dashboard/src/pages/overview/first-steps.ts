/** What to do first with a new cluster. Pure; tested in first-steps.test.ts. */
import type { Summary } from "../../api/summary.ts";

export interface Step {
  key: "node" | "image" | "deploy";
  title: string;
  text: string;
  done: boolean;
  to: "/nodes" | "/images/new" | "/deployments/new";
  search: Record<string, string>;
  action: string;
  cli: string;
}

/** How many of a noun there are, whatever their state. */
export function total(states: Record<string, number>): number {
  return Object.entries(states).reduce((sum, [state, number]) => (state === "deleted" ? sum : sum + number), 0);
}

/** The steps to the first instances. Empty once all are done. */
export function firstSteps(summary: Summary, operator: boolean): Step[] {
  const steps: Step[] = [
    {
      key: "image",
      title: "Import an image",
      text: "A raw or qcow2 file of a disk. All instances that you deploy from it share its bytes.",
      done: (summary.images.ready ?? 0) > 0,
      to: "/images/new",
      search: {},
      action: "Upload an image",
      cli: "muster image import debian debian-12.qcow2",
    },
    {
      key: "deploy",
      title: "Deploy instances from it",
      text: "They boot at once. Each reads only the parts of the image that it needs.",
      done: total(summary.deployments) > 0,
      to: "/deployments/new",
      search: {},
      action: "Deploy instances",
      cli: "muster deploy web --image debian --count 4",
    },
  ];
  if (operator) {
    steps.unshift({
      key: "node",
      title: "Join a node",
      text: "A host that runs instances and gives disk space to the pool. Begin with one, three are better.",
      done: total(summary.nodes) > 0,
      to: "/nodes",
      search: { add: "1" },
      action: "Add a node",
      cli: "muster token create --role node",
    });
  }
  return steps.every(({ done }) => done) ? [] : steps;
}
