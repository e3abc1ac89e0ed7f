import { EmptyState } from "../ui/EmptyState.tsx";
import { ButtonLink } from "../ui/links.tsx";
import { Page } from "../ui/Page.tsx";

export default function NotFound() {
  return (
    <Page title="There is no such page">
      <EmptyState title="Nothing is at this address" action={<ButtonLink to="/">Go to the overview</ButtonLink>}>
        The link may be old, or mistyped. Ctrl-K finds things by name.
      </EmptyState>
    </Page>
  );
}
