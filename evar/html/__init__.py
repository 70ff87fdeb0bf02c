"""The report as one page of HTML that needs nothing beside itself: no net, no fonts, no libraries."""
