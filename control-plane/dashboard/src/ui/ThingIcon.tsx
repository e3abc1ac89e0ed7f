import {
  IconBox,
  IconCamera,
  IconCircle,
  IconCylinder,
  IconDatabase,
  IconDeviceFloppy,
  IconGitCommit,
  IconKey,
  IconListDetails,
  IconNetwork,
  IconServer2,
  IconShield,
  IconStack2,
} from "@tabler/icons-react";

const icons: Record<string, typeof IconCircle> = {
  deployment: IconStack2,
  disk: IconDeviceFloppy,
  image: IconDatabase,
  instance: IconBox,
  network: IconNetwork,
  node: IconServer2,
  operation: IconListDetails,
  pool: IconCylinder,
  security_group: IconShield,
  snapshot: IconCamera,
  token: IconKey,
  version: IconGitCommit,
};

/** The icon of a kind of thing, as in the navigation. */
export function ThingIcon({ kind, size = 15 }: { kind: string; size?: number }) {
  const Icon = icons[kind] ?? IconCircle;
  return <Icon size={size} stroke={1.7} aria-hidden />;
}
