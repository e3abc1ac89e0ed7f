/** Mantine's parts as links of the router: the address is checked by the compiler, and a click loads no page. */
import { ActionIcon, Anchor, Button, type ButtonProps } from "@mantine/core";
import { createLink } from "@tanstack/react-router";
import type { AnchorHTMLAttributes, Ref } from "react";

export const TextLink = createLink(Anchor<"a">);

function AnchorButton(props: ButtonProps & AnchorHTMLAttributes<HTMLAnchorElement> & { ref?: Ref<HTMLAnchorElement> }) {
  return <Button component="a" {...props} />;
}
export const ButtonLink = createLink(AnchorButton);

export const IconLink = createLink(ActionIcon<"a">);
