import { Button, Group, Stack, Text } from "@mantine/core";
import { useMe } from "../../api/me.ts";
import { addressOf, useMakeSignInLink } from "../../api/session.ts";
import type { Token } from "../../api/tokens.ts";
import { Dialog } from "../../ui/Dialog.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { Secret } from "./Secret.tsx";
import { roleName } from "./TokensTable.tsx";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** Whom the link signs in as; the caller if left out. */
  token?: Token | undefined;
}

/** Makes a link that signs one browser in, and shows it once. */
export function SignInLinkDialog({ opened, onClose, token }: Props) {
  return (
    <Dialog opened={opened} onClose={onClose} title="Sign-in link">
      <Link onClose={onClose} token={token} />
    </Dialog>
  );
}

function Link({ onClose, token }: Omit<Props, "opened">) {
  const me = useMe();
  const make = useMakeSignInLink();
  const name = token?.name ?? me.name;
  const role = roleName(token?.role ?? me.role);
  if (make.data !== undefined) {
    return (
      <Stack>
        <Secret value={addressOf(make.data)} what="link">
          It signs in one browser as {make.data.token_name}, and ends after 10 minutes.
        </Secret>
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Done
          </Button>
        </Group>
      </Stack>
    );
  }
  return (
    <Stack>
      <Text size="sm">
        The link signs one browser in as <b>{name}</b> ({role}), without the token itself: for your telephone, or for
        somebody who should see what {name} sees. It is good once, for 10 minutes.
      </Text>
      {make.error !== null && <ErrorBox error={make.error} title="The link was not made" />}
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>
          Back
        </Button>
        <Button onClick={() => make.mutate(token?.id)} loading={make.isPending} data-autofocus>
          Make the link
        </Button>
      </Group>
    </Stack>
  );
}
