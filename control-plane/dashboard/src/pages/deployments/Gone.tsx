import { Group, Text } from "@mantine/core";
import type { Deployment } from "../../api/deployments.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { searchFrom } from "./wizard/again.ts";

/** Stands for a deployment that was deleted while it was looked at. */
export function Gone({ deployment, crumbs }: { deployment: Deployment; crumbs: React.ReactNode[] }) {
  return (
    <Page title={deployment.name} crumbs={crumbs}>
      <EmptyState
        title="This deployment is deleted"
        action={
          <Group gap="xs" justify="center">
            <ButtonLink to="/deployments" variant="default">
              All deployments
            </ButtonLink>
            <ButtonLink to="/deployments/new" search={searchFrom(deployment) as never}>
              Deploy another like it
            </ButtonLink>
          </Group>
        }
      >
        <Text size="sm">Its members and their disks are gone. Snapshots of it are still there.</Text>
      </EmptyState>
    </Page>
  );
}
