/** The pages that the navigation and the command palette offer. */
import {
  IconActivity,
  IconBox,
  IconCamera,
  IconCylinder,
  IconDatabase,
  IconDeviceFloppy,
  IconFolders,
  IconKey,
  IconLayoutDashboard,
  IconListDetails,
  IconNetwork,
  IconServer2,
  IconShield,
  IconStack2,
} from "@tabler/icons-react";

export const pages = [
  { to: "/", title: "Overview", icon: IconLayoutDashboard, go: "o", operators: false },
  { to: "/deployments", title: "Deployments", icon: IconStack2, go: "d", operators: false },
  { to: "/instances", title: "Instances", icon: IconBox, go: "i", operators: false },
  { to: "/disks", title: "Disks", icon: IconDeviceFloppy, go: "k", operators: false },
  { to: "/images", title: "Images", icon: IconDatabase, go: "m", operators: false },
  { to: "/snapshots", title: "Snapshots", icon: IconCamera, go: "s", operators: false },
  { to: "/networks", title: "Networks", icon: IconNetwork, go: "w", operators: false },
  { to: "/security-groups", title: "Security groups", icon: IconShield, go: "u", operators: false },
  { to: "/nodes", title: "Nodes", icon: IconServer2, go: "n", operators: true },
  { to: "/pools/default", title: "Pool", icon: IconCylinder, go: "l", operators: true },
  { to: "/operations", title: "Operations", icon: IconListDetails, go: "p", operators: false },
  { to: "/events", title: "Events", icon: IconActivity, go: "e", operators: false },
  { to: "/tokens", title: "Tokens", icon: IconKey, go: "t", operators: false },
  { to: "/projects", title: "Projects", icon: IconFolders, go: "r", operators: true },
] as const;

export type PageLink = (typeof pages)[number];
