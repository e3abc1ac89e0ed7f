import { ActionIcon, Menu, Text } from "@mantine/core";
import { IconLogout, IconUser } from "@tabler/icons-react";
import type { Me } from "../api/me.ts";
import { useCommands } from "../commands/registry.ts";
import { exact } from "../ui/format.ts";
import { useSignOut } from "./sign-out.ts";

/** Who is signed in, and the way out. */
export function UserMenu({ me }: { me: Me }) {
  const signOut = useSignOut();
  useCommands(
    () => [{ id: "sign-out", title: "Sign out", words: "log out leave", general: true, run: signOut }],
    [signOut],
  );
  return (
    <Menu position="bottom-end" shadow="md" width={240}>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={`Signed in as ${me.name}`}>
          <IconUser size={17} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          <Text size="sm" fw={600} c="var(--mantine-color-text)" truncate>
            {me.name}
          </Text>
          <Text size="xs">{me.role === "admin" ? "Operator of the cluster" : `Tenant, project ${me.project}`}</Text>
          {me.expires_at && <Text size="xs">until {exact(me.expires_at)}</Text>}
          <Text size="xs" mt={4}>
            Muster {me.version}
          </Text>
        </Menu.Label>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={15} />} onClick={signOut}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
